"""The one place where a file's bytes become pixels: upright, 8-bit sRGB, at a reduced scale where that is enough.

Formats are told by content (`search.formats`), and Pillow is handed exactly one plugin for each, so that no other
(PostScript with Ghostscript, say) ever runs. What can hang or crash belongs into `search.guarded`:
`read_pixels` decides.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import IO

from PIL import Image as PilImage
from PIL import ImageFile, PngImagePlugin

from search import boxes
from search.colour import to_eight_bits, to_srgb
from search.errors import TooLarge, TooSmall, Unreadable
from search.formats import HEAD_BYTES, describe, label, looks_like_image_name, sniff, wrong_content

__all__ = [
    "HEAD_BYTES", "Decoded", "Limits", "Probe", "decode", "describe", "is_risky", "looks_like_image_name", "probe",
    "read_file", "read_pixels", "sniff",
]  # fmt: skip

# Our own limits stand in for Pillow's bomb warning; a picture that is cut off is an error, never half grey.
PilImage.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 1024 * 1024
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file is said once, by the exception

FILE_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error, ArithmeticError,
    MemoryError, AttributeError, AssertionError, RuntimeError, PilImage.DecompressionBombError,
)  # fmt: skip
"""Everything that Pillow and its plugins have been seen to raise on a broken file."""

_ZEROS = bytes(1024)
_MANY_SCANS = 100
_GUARDED_MEGAPIXELS = 64
_RISKY = {"HEIF", "AVIF", "JPEG2000", "TIFF", "GIF", "RAW"}
_TRANSPOSE = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT, 3: PilImage.Transpose.ROTATE_180, 4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE, 6: PilImage.Transpose.ROTATE_270, 7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What is accepted, checked from the header before any pixel is decoded."""

    min_side: int
    max_pixels: int

    @classmethod
    def from_settings(cls) -> Limits:
        from django.conf import settings

        return cls(settings.IMAGESEARCH_MIN_SIDE, int(settings.IMAGESEARCH_MAX_MEGAPIXELS * 1_000_000))

    def check(self, width: int, height: int) -> None:
        """Raises TooSmall or TooLarge."""
        if width * height > self.max_pixels:
            raise TooLarge(
                f"The picture has {width} x {height} pixels, {width * height / 1e6:.0f} megapixels; "
                f"at most {self.max_pixels / 1e6:g} are accepted (IMAGESEARCH_MAX_MEGAPIXELS)."
            )
        if min(width, height) < self.min_side:
            raise TooSmall(
                f"The picture has {width} x {height} pixels; "
                f"sides of at least {self.min_side} are accepted (IMAGESEARCH_MIN_SIDE)."
            )

    @property
    def max_bytes(self) -> int:
        """No accepted picture needs a larger file: eight bytes a pixel, uncompressed, and its metadata."""
        return self.max_pixels * 8 + (64 << 20)


@dataclass(frozen=True)
class Probe:
    """What the header says; width and height in pixels after orientation."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Decoded:
    """Pixels in sRGB (mode RGB, upright, perhaps at a reduced scale), and the full size after orientation."""

    pixels: PilImage.Image
    format: str
    width: int
    height: int


def read_file(path: str | bytes | os.PathLike[str], limits: Limits | None = None) -> bytes:
    """The bytes of a regular file, of at most `limits.max_bytes`.

    Raises Unreadable (also for what is no regular file: a FIFO or device is never read), OSError as `open` does.
    """
    limits = limits or Limits.from_settings()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("This is not a regular file.")
        if status.st_size > limits.max_bytes:
            raise TooLarge(
                f"The file has {status.st_size / 1e6:.0f} MB, more than any accepted picture needs; "
                f"{limits.max_bytes / 1e6:.0f} MB are read at most (see IMAGESEARCH_MAX_MEGAPIXELS)."
            )
        return file.read()


def probe(path: str | bytes | os.PathLike[str], *, limits: Limits | None = None) -> Probe:
    """Format and size from the header; no pixel is decoded.

    Raises Unreadable (TooLarge, TooSmall) with a sentence; OSError where the file cannot be opened.
    """
    limits = limits or Limits.from_settings()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unreadable("This is not a regular file.")
        head = file.read(HEAD_BYTES)
        name = os.fsencode(path)
        format = sniff(head, name)
        if format is None:
            raise Unreadable(wrong_content(head, name))
        if format == "RAW":
            raise Unreadable("The size of a raw photo is known when it is decoded.")
        size = boxes.size_of(head) if format in ("HEIF", "AVIF") else None
        if size is None:
            file.seek(0)
            image = _open(file, format)
            try:
                size = _upright_size(image)
            except FILE_FAULTS as fault:
                raise _unreadable(format, fault) from fault
    limits.check(*size)
    return Probe(format, *size)


def decode(data: bytes, *, min_side: int | None, name: bytes | str = b"", limits: Limits | None = None) -> Decoded:
    """Bytes of a file -> its first frame, upright, in sRGB.

    With `min_side` the pixels may come at a whole fraction of the full size, with the shorter side never below
    `min_side` pixels (nor enlarged): a caller that resizes to n asks for 2 n and loses nothing that can be seen.
    `name` settles what is a raw file, and serves messages. Runs in this process: see `read_pixels` for what can
    hang. Raises Unreadable (TooLarge, TooSmall).
    """
    limits = limits or Limits.from_settings()
    format = sniff(data[:HEAD_BYTES], name)
    if format is None:
        raise Unreadable(wrong_content(data[:HEAD_BYTES], name))
    if format == "RAW":
        return _raw(data, min_side, limits)
    if format == "JPEG" and data.endswith(_ZEROS):
        # A copy that was broken off, in space set aside for it: without the zeros the decoder notices.
        data = data.rstrip(b"\0")
    image = _open(BytesIO(data), format)
    try:
        with image:
            limits.check(*image.size)
            return _pixels(image, format, min_side)
    except (TooLarge, TooSmall):
        raise
    except FILE_FAULTS as fault:
        raise _unreadable(format, fault) from fault


def read_pixels(
    data: bytes, *, min_side: int | None, name: bytes | str = b"", cautious: bool = False, limits: Limits | None = None
) -> Decoded:
    """`decode`, in a killable process where the format or the file's shape can hang or crash the decoder.

    `cautious` sends every file there. Raises Unreadable (TooLarge, TooSmall, TooSlow).
    """
    from search.guarded import decode_guarded

    limits = limits or Limits.from_settings()
    format = sniff(data[:HEAD_BYTES], name)
    if format is None:
        raise Unreadable(wrong_content(data[:HEAD_BYTES], name))
    if cautious or is_risky(format, data):
        return decode_guarded(data, min_side=min_side, name=name, limits=limits)
    return decode(data, min_side=min_side, name=name, limits=limits)


def is_risky(format: str, data: bytes) -> bool:
    """Whether this file belongs into a killable process: a format whose decoder can hang or crash, a progressive
    JPEG with very many scans (each costs a pass over all pixels), or a very large picture."""
    if format in _RISKY:
        return True
    try:
        image = _open(BytesIO(data), format)
    except Unreadable:
        return False
    if image.width * image.height > _GUARDED_MEGAPIXELS * 1_000_000:
        return True
    return "progressive" in image.info and data.count(b"\xff\xda") > _MANY_SCANS


def _open(file: IO[bytes], format: str) -> PilImage.Image:
    """The lazily opened picture: header read, no pixel decoded."""
    _register_box_formats(format)
    try:
        return PilImage.open(file, formats=[format])
    except PilImage.UnidentifiedImageError as fault:
        raise Unreadable(
            f"The header of this {label(format)} picture is damaged, or of a variant that cannot be read."
        ) from fault
    except FILE_FAULTS as fault:
        raise _unreadable(format, fault) from fault


def _register_box_formats(format: str) -> None:
    """Pillow's plugins for HEIF and AVIF, open for every brand that `sniff` calls so.

    Each time anew: it is a few dict entries, and another registration may have narrowed the brands.
    """
    if format == "HEIF":
        import pillow_heif

        # One thread a picture: the reader threads already use the cores.
        pillow_heif.options.DECODE_THREADS = 1
        PilImage.register_open("HEIF", pillow_heif.HeifImageFile, _has_brand)
    elif format == "AVIF":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        PilImage.register_open("AVIF", AvifImagePlugin.AvifImageFile, _has_brand)


def _has_brand(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp"


def _raw(data: bytes, min_side: int | None, limits: Limits) -> Decoded:
    """A raw file's preview, upright and in its own colours made sRGB, or the file developed at half its size."""
    from search.raw import read_raw

    raw = read_raw(data, min_side=min_side, check=limits.check)
    if raw.preview is not None:
        try:
            with _open(BytesIO(raw.preview), "JPEG") as image:
                says = 0x0112 in image.getexif()
                pixels = _pixels(image, "JPEG", min_side).pixels
            if not says and raw.orientation in _TRANSPOSE:
                pixels = pixels.transpose(_TRANSPOSE[raw.orientation])
            if (pixels.width > pixels.height) == (raw.width > raw.height) or raw.width == raw.height:
                return Decoded(pixels, "RAW", raw.width, raw.height)
        except (Unreadable, *FILE_FAULTS):
            pass  # the preview is damaged: the raw data may be whole
        raw = read_raw(data, min_side=min_side, check=limits.check, develop=True)
    if raw.developed is None:
        raise Unreadable("This raw photo could not be developed.")
    pixels = PilImage.fromarray(raw.developed)
    if min_side and (factor := min(pixels.size) // min_side) > 1:
        pixels = pixels.reduce(factor)
    return Decoded(pixels, "RAW", raw.width, raw.height)


def _pixels(image: PilImage.Image, format: str, min_side: int | None) -> Decoded:
    full = image.size
    if min_side:
        image = _ask_reduced(image, min_side)
    image.load()
    reduced = image.size != full and format in ("JPEG", "JPEG2000")
    if not reduced:
        full = image.size  # HEIF and TIFF may correct themselves while loading
    profile = image.info.get("icc_profile")
    orientation = _orientation(image, format)
    flat = to_eight_bits(image)
    if min_side and (factor := min(flat.size) // min_side) > 1:
        flat = PilImage.Image.reduce(flat, factor)
    rgb = to_srgb(flat, profile if isinstance(profile, bytes) else None)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
        full = full[::-1] if orientation >= 5 else full
    return Decoded(_plain(rgb), format, *full)


def _ask_reduced(image: PilImage.Image, min_side: int) -> PilImage.Image:
    """Ask the decoder for a half, a quarter or an eighth, where it can."""
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (min_side, min_side))
    elif image.format == "JPEG2000":
        levels = min((min(image.size) // min_side).bit_length() - 1, _wavelet_levels(image))
        if levels > 0:
            image.reduce = levels  # type: ignore[method-assign,assignment]
    return image


def _wavelet_levels(image: PilImage.Image) -> int:
    """How often a JPEG 2000 picture can be halved while it is decoded: from its COD segment."""
    file = getattr(image, "fp", None)
    if file is None:
        return 0
    at = file.tell()
    file.seek(0)
    head = file.read(65536)
    file.seek(at)
    start = head.find(b"\xff\x52", head.find(b"\xff\x4f\xff\x51"))
    return min(head[start + 9], 5) if 0 <= start < len(head) - 9 else 0


def _orientation(image: PilImage.Image, format: str) -> int:
    """EXIF orientation that is still to be applied, 1 to 8."""
    if format in ("HEIF", "TIFF"):
        return 1  # pillow-heif and Pillow's TIFF plugin turn the pixels themselves
    try:
        value = image.getexif().get(0x0112, 1)
    except FILE_FAULTS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright_size(image: PilImage.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image, image.format or "") >= 5 else (width, height)


def _plain(image: PilImage.Image) -> PilImage.Image:
    """Without the file's profile, EXIF and the rest: they no longer fit these pixels."""
    if isinstance(image, ImageFile.ImageFile):
        image = image.copy()
    image.info = {}
    return image


def _unreadable(format: str, fault: BaseException) -> Unreadable:
    """The sentence for what a decoder raised."""
    if isinstance(fault, Unreadable):
        return fault
    if isinstance(fault, MemoryError):
        return Unreadable(f"There is not enough memory to decode this {label(format)} picture.")
    said = " ".join(str(fault).split()).strip(" .")[:160]
    if re.search(r"truncat|not enough|end of (file|data)|unexpected end|incomplete|premature", said, re.IGNORECASE):
        return Unreadable(f"This {label(format)} picture is cut off: the end of the file is missing.")
    if said.startswith("decoder error"):
        said = "its compressed data make no sense"
    said = said if said and said.isprintable() else type(fault).__name__
    return Unreadable(f"This {label(format)} picture is damaged or of a variant that cannot be decoded ({said}).")
