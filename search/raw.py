"""Camera raw files through LibRaw (rawpy): the preview that the camera embedded, else half-size development.

Runs in the guarded child process only (`decoding.is_risky`): LibRaw reads hundreds of formats that nobody documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.errors import Unreadable

_FLIPS = {3: 3, 5: 8, 6: 6}
"""LibRaw's `flip` -> EXIF orientation; 0 is upright."""


@dataclass(frozen=True)
class Raw:
    """What a raw file holds: `width` and `height` of the upright developed picture, and one of the two."""

    width: int
    height: int
    preview: bytes | None
    """A JPEG, as it lies in the file."""
    orientation: int
    """EXIF orientation of the raw data: what the preview needs where it does not say its own."""
    developed: npt.NDArray[np.uint8] | None
    """(h, w, 3) sRGB, upright, half as large, where there is no preview that is large enough."""


def read_raw(data: bytes, *, min_side: int | None, check: Callable[[int, int], None], develop: bool = False) -> Raw:
    """Open a raw file and take its preview, where its shorter side is `min_side` or half of the picture's.

    With `develop` the preview is not looked at. `check(width, height)` may refuse before anything is unpacked.
    Raises Unreadable.
    """
    from io import BytesIO

    import rawpy

    try:
        with rawpy.imread(BytesIO(data)) as file:
            sizes = file.sizes
            turned = sizes.flip in (5, 6)
            width, height = (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)
            check(width, height)
            orientation = _FLIPS.get(sizes.flip, 1)
            preview = None if develop else _preview(file)
            if preview is not None:
                wanted = min(min_side or width, min(width, height) // 2)
                if _shorter_side(preview) >= wanted:
                    return Raw(width, height, preview, orientation, None)
            pixels = file.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
            return Raw(width, height, None, orientation, np.ascontiguousarray(pixels))
    except rawpy.LibRawIOError as fault:
        raise Unreadable("This raw photo is cut off: the end of the file is missing.") from fault
    except rawpy.LibRawFileUnsupportedError as fault:
        raise Unreadable("This raw photo is damaged, or of a camera that LibRaw does not know.") from fault
    except rawpy.LibRawError as fault:
        said = fault.args[0].decode("utf-8", "replace") if fault.args and isinstance(fault.args[0], bytes) else fault
        raise Unreadable(f"This raw photo is damaged or cannot be developed ({said}).") from fault


def _preview(file: object) -> bytes | None:
    """The largest embedded JPEG that LibRaw finds; None where there is none, or it is of another kind."""
    import rawpy

    try:
        found = file.extract_thumb()  # type: ignore[attr-defined]
    except rawpy.LibRawError:
        return None
    return bytes(found.data) if found.format == rawpy.ThumbFormat.JPEG else None


def _shorter_side(jpeg: bytes) -> int:
    """0 for what is no JPEG after all."""
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(jpeg), formats=["JPEG"]) as picture:
            return min(picture.size)
    except (OSError, SyntaxError, ValueError):
        return 0
