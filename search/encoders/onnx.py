"""Image-only encoders in ONNX format: any network that turns a square picture into one vector, run by onnxruntime.

The vector is the network's output, minus the mean vector where the folder has one, brought to unit length. Taking
the mean away spreads features that all lie in one corner (after a ReLU none is negative), so that cosines tell
pictures apart: "all-but-the-top" without its second step (Mu and Viswanath, 2018).
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from search.arrays import Vectors
from search.encoders import onnx_folder, weights
from search.encoders.onnx_folder import OnnxFolder
from search.encoders.specification import Specification
from search.encoders.threads import wanted_threads
from search.errors import EncoderFault, EncoderUnavailable

logger = logging.getLogger(__name__)

CHUNK = 4
"""Pictures that go through the network at once: layer by layer they still fit the processor's cache. MobileNetV2 on
one thread took 7.3 ms a picture with 2, 7.7 with 4, 8.7 with 32."""
LONGEST = 16
"""Of pictures longer than so many times their shorter side only that middle part is resized."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxEncoder:
    """A network from a folder, ready. See `search.encoders.base.Encoder` for the promises; it knows no words."""

    text = False

    def __init__(self, found: OnnxFolder, onnxruntime: Any) -> None:
        self._found, self._onnxruntime = found, onnxruntime
        self._lock = threading.Lock()
        self._session: tuple[int, Any] | None = None
        self.label = found.name
        self.side = found.resize.short_side
        session = self._ready()
        self._batch, self._type = self._check_ends(session)
        # Exactly torchvision's ToTensor and Normalize, for each of the 256 values a channel can have.
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        self._tables = [
            (values - np.float32(mean)) / np.float32(std) for mean, std in zip(found.mean, found.std, strict=True)
        ]
        self.dim = self._check_output()
        content = weights.sha256_of(found.model)
        beside = _external_files(found.model)
        if beside:
            content = hashlib.sha256("".join([content, *map(weights.sha256_of, beside)]).encode()).hexdigest()
        centre = "none" if found.subtract is None else hashlib.sha256(found.subtract.tobytes()).hexdigest()[:16]
        self.key = f"onnx:{content}:{_digest(found.preprocessing)}:{centre}"

    def prepare(self, image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
        """RGB pixels -> (size, size, 3) uint8, resized and cropped as the folder's JSON says."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        size, how = self._found.size, self._found.resize
        if how.squash:
            return np.array(image.resize((size, size), how.filter), dtype=np.uint8)
        image = _middle(image)
        width, height = image.size
        # The longer side is cut to a whole number, and half pixels are rounded, as torchvision does both.
        if width <= height:
            width, height = how.short_side, int(how.short_side * height / width)
        else:
            width, height = int(how.short_side * width / height), how.short_side
        image = image.resize((width, height), how.filter)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return np.array(image.crop((left, top, left + size, top + size)), dtype=np.uint8)

    def encode_images(self, batch: Sequence[Any]) -> Vectors:
        """Prepared pictures -> (n, dim) float32, unit rows, in order; zeros where nothing is left beside the mean.

        Raises EncoderFault when a single picture does not fit the memory, or a vector is not finite.
        """
        rows = np.zeros((len(batch), self.dim), np.float32)
        for start, part in _parts(batch, self._batch or CHUNK):
            rows[start : start + len(part)] = self._halving(part)
        if not np.isfinite(rows).all():
            raise EncoderFault(
                f"The network {self._found.model} gave a vector that is not finite. Export it again in float32, or "
                "choose another model with IMAGESEARCH_ENCODER."
            )
        if self._found.subtract is not None:
            rows -= self._found.subtract
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-9)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        if texts:
            raise ValueError(f"{self.label} compares pictures and knows no words.")
        return np.zeros((0, self.dim), np.float32)

    def unknown_words(self, text: str) -> list[str]:
        return text.split()

    def _halving(self, part: Sequence[Any]) -> npt.NDArray[Any]:
        try:
            return self._run(part)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise EncoderFault(
                    f"One picture does not fit the memory that {self.label} has: free some memory, or choose a "
                    "smaller model with IMAGESEARCH_ENCODER."
                ) from None
        # Outside of the except clause: the traceback would keep the failed batch alive.
        half = len(part) // 2
        return np.concatenate([self._halving(part[:half]), self._halving(part[half:])])

    def _run(self, part: Sequence[Any]) -> npt.NDArray[Any]:
        """(k, dim) as the network gives it, for at most one batch of it; a fixed batch is filled up and cut."""
        count = self._batch or len(part)
        inputs = np.zeros((count, 3, self._found.size, self._found.size), self._type)
        for place, pixels in enumerate(part):
            for channel, table in enumerate(self._tables):
                inputs[place, channel] = table[pixels[..., channel]]
        (rows,) = self._ready().run([self._found.output], {self._found.input: inputs})
        return np.asarray(rows)[: len(part)]

    def _ready(self) -> Any:
        """The session for so many threads as are wanted now; only the newest is kept, since each holds the weights."""
        wanted = wanted_threads()
        session = self._session
        if session is not None and session[0] == wanted:
            return session[1]
        with self._lock:
            if self._session is None or self._session[0] != wanted:
                self._session = (wanted, self._open(wanted))
            return self._session[1]

    def _open(self, threads: int) -> Any:
        options = self._onnxruntime.SessionOptions()
        # One thread: each caller computes in its own, without a pool. The pool is shared by all callers otherwise.
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Threads that spin while they wait take the processor from those that read and decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = str(self._found.model)
        try:
            return self._onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if _is_out_of_memory(error):
                raise EncoderFault(f"The model {self.label} does not fit the memory.") from error
            if not _is_of_the_runtime(error):
                raise
            raise EncoderUnavailable(
                f"The network {path} cannot be loaded: {_first_line(error)} The file is damaged, lacks a file of "
                "weights beside it, or needs a newer onnxruntime; copy or export it again."
            ) from error

    def _check_ends(self, session: Any) -> tuple[int | None, Any]:
        """(the batch the network is made for, None when it takes any; the type of its input)."""
        found = self._found
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if found.input not in [one.name for one in inputs]:
            raise self._wrong(f"has no input {found.input!r}; it has {_names(inputs)}")
        if found.output not in [one.name for one in outputs]:
            raise self._wrong(f"has no output {found.output!r}; it has {_names(outputs)}")
        if len(inputs) != 1:
            raise self._wrong(f"wants {len(inputs)} inputs ({_names(inputs)}); only a picture can be given")
        given = inputs[0]
        fits = [None, 3, found.size, found.size]
        wanted = len(given.shape) == 4 and all(
            not isinstance(side, int) or right in (None, side) for side, right in zip(given.shape, fits, strict=True)
        )
        if not wanted:
            raise self._wrong(
                f"wants an input of shape {list(given.shape)}, not (pictures, 3, {found.size}, {found.size})"
            )
        if given.type not in _TYPES:
            raise self._wrong(f"wants an input of type {given.type}, not float or float16")
        batch = given.shape[0]
        return (batch if isinstance(batch, int) and batch > 0 else None), _TYPES[given.type]

    def _check_output(self) -> int:
        """The length of the vectors, from a trial of two pictures."""
        grey = np.full((self._found.size, self._found.size, 3), 128, np.uint8)
        count = min(2, self._batch or 2)
        try:
            rows = self._run([grey] * count)
        except Exception as error:
            if not _is_of_the_runtime(error) or _is_out_of_memory(error):
                raise
            raise self._wrong(f"fails on a picture of {self._found.size} pixels ({_first_line(error)})") from error
        if rows.ndim != 2 or len(rows) != count or not rows.shape[1] or rows.dtype.kind != "f":
            shape = ("pictures", *rows.shape[1:]) if rows.ndim else ()
            raise self._wrong(
                f"gives {self._found.output!r} of shape ({', '.join(map(str, shape))}) and type {rows.dtype}, not one "
                "row of numbers for each picture. Name another output, or add pooling and flattening"
            )
        if not np.isfinite(rows).all():
            raise self._wrong("gives numbers that are not finite for a grey picture")
        if sentence := onnx_folder.wrong_dim(self._found, rows.shape[1]):
            raise EncoderUnavailable(sentence)
        return int(rows.shape[1])

    def _wrong(self, what: str) -> EncoderUnavailable:
        return EncoderUnavailable(
            f"The network {self._found.model} {what}. Correct {self._found.config}, or export the network again."
        )


def load(specification: Specification) -> OnnxEncoder:
    """Read the folder, open the network and try it. Raises EncoderUnavailable: a sentence that says what is wrong."""
    found = onnx_folder.read(specification.path)
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderUnavailable(
            f"The model {found.name} needs onnxruntime, which cannot be imported ({error}): run `make setup`."
        ) from error
    return OnnxEncoder(found, onnxruntime)


def _external_files(model: Path) -> list[Path]:
    """The files beside the network that hold its larger weights, in order: they are part of what it is."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    names: set[str] = set()

    def visit(graph: Any) -> None:
        tensors = list(graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                for inner in [attribute.g, *attribute.graphs]:
                    if inner.node or inner.initializer:
                        visit(inner)
        names.update(ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor))

    visit(onnx.load(str(model), load_external_data=False).graph)
    return [model.parent / name for name in sorted(names)]


def _parts(batch: Sequence[Any], size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    for start in range(0, len(batch), size):
        yield start, batch[start : start + size]


def _middle(image: PIL.Image.Image) -> PIL.Image.Image:
    """A very long picture cut down to its middle, so that resizing it stays cheap."""
    width, height = image.size
    most = LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def _names(ends: Sequence[Any]) -> str:
    return ", ".join(repr(one.name) for one in ends) or "none"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _is_of_the_runtime(error: Exception) -> bool:
    """onnxruntime's exceptions share no base class of their own, only the module they come from."""
    return type(error).__module__.startswith("onnxruntime.")


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        _is_of_the_runtime(error) and ("failed to allocate memory" in said or "out of memory" in said)
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return line if line.endswith((".", ":", "!")) else line + "."
