"""OpenCLIP encoders: any architecture and weights that open_clip knows, loaded from files on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from search.arrays import Vectors
from search.encoders import precision, weights
from search.encoders.causal_texts import shortened
from search.encoders.extras import missing_package
from search.encoders.specification import Kind, Specification
from search.encoders.threads import apply_threads, before_torch, wanted_threads
from search.errors import EncoderFault, EncoderUnavailable

logger = logging.getLogger(__name__)

TRY_LARGER_AFTER = 200
"""Batches that fit before one of twice the size is tried again."""


class OpenClipEncoder:
    """A CLIP model, ready. See `search.encoders.base.Encoder` for the promises."""

    text = True

    def __init__(
        self,
        model: Any,
        preprocess: Callable[[PIL.Image.Image], Any],
        tokenizer: Callable[[list[str]], Any],
        *,
        key: str,
        label: str,
        arithmetic: precision.Arithmetic,
    ) -> None:
        import torch

        self.key, self.label, self.arithmetic = key, label, arithmetic
        self._torch, self._model, self._tokenizer = torch, model, tokenizer
        self._dtype = precision.dtype_of(torch, arithmetic.precision)
        size = model.visual.preprocess_cfg["size"]
        self.side = int(max(size) if isinstance(size, list | tuple) else size)
        self._pixels, self._finish = split(preprocess, torch)
        self._fits = 1 << 30
        """The largest batch that is not known to be too large for the memory."""
        self._since = 0
        """Batches that fitted since the last one that did not."""
        self._tokenizer_lock = threading.Lock()
        self._encode_text: Callable[[Any], Any] = shortened(model, torch) or model.encode_text
        self._threads_of_a_text: int | None = None
        self.dim = int(self._forward_texts(["a"]).shape[1])
        self._threads_of_a_text = self._one_or_all()

    def prepare(self, image: PIL.Image.Image) -> np.ndarray[Any, Any]:
        """RGB pixels -> (height, width, 3) uint8, resized and cropped as the model's configuration says.

        The scaling to floats happens for the whole batch: a prepared picture takes a quarter of the memory.
        """
        if image.mode != "RGB":
            image = image.convert("RGB")
        return self._pixels(image)

    def encode_images(self, batch: Sequence[Any]) -> Vectors:
        """Prepared pictures -> (n, dim) float32, unit rows, in order.

        A batch that does not fit the memory is halved, and later ones are cut to what did fit.
        Raises EncoderFault when a single picture does not fit, or a vector is not finite.
        """
        return self._halving(self._forward_images, batch, "picture")

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts -> (n, dim) float32, unit rows, in order. Longer texts are cut at the model's context length."""
        return self._halving(self._forward_texts, list(texts), "text")

    def unknown_words(self, text: str) -> list[str]:
        return []

    def _halving(self, forward: Callable[[Any], Vectors], batch: Sequence[Any], noun: str) -> Vectors:
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        rows: list[Vectors] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self._fits]
            try:
                rows.append(forward(part))
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise EncoderFault(
                        f"One {noun} does not fit the memory that {self.label} has on {self.arithmetic.device}: free "
                        "some memory, or choose a smaller model with IMAGESEARCH_ENCODER."
                    ) from None
                self._fits, self._since = len(part) // 2, 0
                logger.warning("A batch of %d did not fit the memory; going on with %d.", len(part), self._fits)
            else:
                start += len(part)
                self._since += 1
                if self._fits < len(batch) and self._since >= TRY_LARGER_AFTER:
                    self._fits, self._since = 2 * self._fits, 0  # what took the memory may have ended
                continue
            # Outside of the except clause: the traceback would keep the failed batch's tensors alive.
            if self.arithmetic.device == "cuda":
                self._torch.cuda.empty_cache()
        return np.concatenate(rows)

    def _forward_images(self, part: Sequence[Any]) -> Vectors:
        torch = self._torch
        apply_threads(torch)
        with torch.inference_mode():
            inputs = self._finish(torch.from_numpy(np.stack(part)).to(self.arithmetic.device))
            return self._unit(self._model.encode_image(inputs.to(self._dtype)))

    def _forward_texts(self, part: Sequence[str]) -> Vectors:
        torch = self._torch
        apply_threads(torch, most=self._threads_of_a_text if len(part) == 1 else None)
        with self._tokenizer_lock:  # its cache of word pieces is a plain dictionary
            tokens = self._tokenizer(list(part))
        with torch.inference_mode():
            return self._unit(self._encode_text(tokens.to(self.arithmetic.device)))

    def _one_or_all(self) -> int | None:
        """How many threads a single text is computed with at most: a few words are so little work for each layer that
        waiting for another thread may cost more than it does. Tried, since that depends on processor and format."""
        if self.arithmetic.device != "cpu" or wanted_threads() == 1:
            return None
        quickest = []
        for most in (1, None):
            self._threads_of_a_text = most
            spent = []
            for _ in range(4):
                began = time.perf_counter()
                self._forward_texts(["a dog by the sea"])
                spent.append(time.perf_counter() - began)
            quickest.append(min(spent))
        return 1 if quickest[0] < 1.1 * quickest[1] else None

    def _unit(self, features: Any) -> Vectors:
        rows = features.float()
        rows = rows / rows.norm(dim=-1, keepdim=True)
        array: Vectors = rows.cpu().numpy().astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise EncoderFault(
                f"{self.label} gave a vector that is not finite in {self.arithmetic.precision}: "
                "set IMAGESEARCH_PRECISION=fp32."
            )
        return array


def load(specification: Specification) -> OpenClipEncoder:
    """Build the model, load its weights and convert it. Seconds; imports torch.

    Raises EncoderUnavailable (a sentence) when the files are not here, incomplete or not of this architecture.
    """
    found = weights.locate(specification)
    if found is None and specification.kind is not Kind.RANDOM:
        raise EncoderUnavailable(weights.how_to_bring(specification))
    if lacks := missing_package(specification, found.config if found else None):
        raise EncoderUnavailable(lacks)
    before_torch()
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise EncoderUnavailable(
            f"The model {specification.label} needs torch and open_clip, which cannot be imported ({error}): "
            "run `make setup`."
        ) from error
    arithmetic = precision.choose(torch)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, preprocess, tokenizer = _create(open_clip, specification, found)
            model.eval().requires_grad_(False)
            model = precision.convert(model, torch, arithmetic)
    except ImportError as error:
        raise EncoderUnavailable(
            f"The model {specification.label} needs a package that is not installed ({error}): install it into the "
            "program's environment, or choose another model with IMAGESEARCH_ENCODER."
        ) from error
    except (RuntimeError, ValueError, OSError, KeyError, TypeError, AttributeError, EOFError) as error:
        if _is_out_of_memory(error):
            raise EncoderFault(f"The model {specification.label} does not fit the memory.") from error
        where = found.checkpoint if found else specification.text
        raise EncoderUnavailable(
            f"The model {specification.label} cannot be loaded from {where}: {_first_line(error)} The file is damaged "
            "or belongs to another architecture; copy it again, or delete it and run `manage.py model fetch`."
        ) from error
    return OpenClipEncoder(
        model,
        preprocess,
        tokenizer,
        key=_key(open_clip, model, specification, found),
        label=specification.label,
        arithmetic=arithmetic,
    )


def _create(open_clip: Any, specification: Specification, found: weights.Weights | None) -> tuple[Any, Any, Any]:
    if found and found.config:
        name = f"local-dir:{found.config.parent}"
        return _with_tokenizer(open_clip, name, {})
    if found is None:
        return _with_tokenizer(open_clip, specification.architecture, {"load_weights": False, "pretrained_text": False})
    options: dict[str, Any] = {"pretrained": str(found.checkpoint)}
    if specification.kind is Kind.TAG:
        # The preprocessing and the activation belong to the tag: OpenCLIP takes them only with the tag's own name.
        known = open_clip.pretrained.get_pretrained_cfg(specification.architecture, specification.tag)
        options |= {
            "image_mean": known.get("mean"),
            "image_std": known.get("std"),
            "image_interpolation": known.get("interpolation"),
            "image_resize_mode": known.get("resize_mode"),
            "force_quick_gelu": bool(known.get("quick_gelu")),
        }
    return _with_tokenizer(open_clip, specification.architecture, options)


def _with_tokenizer(open_clip: Any, name: str, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(name, **options)
    length = getattr(model, "context_length", None)
    return model, preprocess, open_clip.get_tokenizer(name, **({"context_length": length} if length else {}))


def split(preprocess: Any, torch: Any) -> tuple[Callable[[PIL.Image.Image], Any], Callable[[Any], Any]]:
    """OpenCLIP's validation transform in two: what each picture needs, and what the whole batch takes at once.

    The arithmetic is that of torchvision's ToTensor and Normalize, in the same order and format.
    """
    from torchvision.transforms import Compose, Normalize

    steps = list(preprocess.transforms)
    if len(steps) < 2 or not isinstance(steps[-1], Normalize) or type(steps[-2]).__name__ != "MaybeToTensor":
        return (lambda image: preprocess(image).numpy()), (lambda inputs: inputs)
    geometry, normalize = Compose(steps[:-2]), steps[-1]

    def pixels(image: PIL.Image.Image) -> Any:
        return np.array(geometry(image), dtype=np.uint8)

    def finish(batch: Any) -> Any:
        floats = batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        return normalize(floats)

    return pixels, finish


def _key(open_clip: Any, model: Any, specification: Specification, found: weights.Weights | None) -> str:
    """Identity: what was built, from which weights, with which preprocessing; not from where, not how precisely."""
    if found and found.config:
        built = json.loads(Path(found.config).read_text())["model_cfg"]
    else:
        built = open_clip.get_model_config(specification.architecture)
    content = weights.sha256_of(found.checkpoint) if found else "random-0"
    preprocessing = dict(model.visual.preprocess_cfg)
    return f"openclip:{_digest(_plain(built))}:{content}:{_digest(_plain(preprocessing))}"


def _plain(value: Any) -> Any:
    """A configuration without what only repeats a default or says where weights come from."""
    if isinstance(value, dict):
        cleaned = {key: _plain(item) for key, item in value.items() if not key.endswith("_pretrained")}
        return {key: item for key, item in cleaned.items() if item not in (None, False, {}, [])}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _is_out_of_memory(error: Exception) -> bool:
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return line if line.endswith((".", ":", "!")) else line + "."


@contextlib.contextmanager
def _quiet() -> Any:
    """OpenCLIP logs each step of loading on the root logger and warns of random weights."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
