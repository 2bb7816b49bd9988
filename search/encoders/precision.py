"""Device and number format of the encoder: what this machine computes fastest without changing what is found."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings


@dataclass(frozen=True)
class Arithmetic:
    """Where and in which format a tower computes."""

    device: str
    """"cpu", "cuda" or "mps"."""
    precision: str
    """"fp32", "bf16" or "fp16"."""


def choose(torch: Any) -> Arithmetic:
    """From settings.IMAGESEARCH_PRECISION and this machine.

    auto: a CUDA card computes in fp16, Apple's in fp16, a CPU with bf16 instructions in bf16, any other in fp32.
    """
    if torch.cuda.is_available():
        device, best = "cuda", "fp16"
    elif torch.backends.mps.is_available():
        device, best = "mps", "fp16"
    else:
        device, best = "cpu", "bf16" if cpu_has_bf16() else "fp32"
    asked = settings.IMAGESEARCH_PRECISION
    return Arithmetic(device, best if asked == "auto" else asked)


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (x86: AVX512-BF16 or AMX-BF16; Arm: the bf16 extension)."""
    try:
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"flags", "Features"}:
                return bool({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"} & set(value.split()))
    except OSError:
        pass
    # macOS has no such file; its GPU is used there, and its processors gain nothing from bf16 in torch.
    return platform.machine() in {"aarch64"} and _torch_says_bf16()


def _torch_says_bf16() -> bool:
    from search.encoders.threads import before_torch

    before_torch()
    import torch

    said = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(said and said())


def dtype_of(torch: Any, precision: str) -> Any:
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def convert(model: Any, torch: Any, arithmetic: Arithmetic) -> Any:
    """The model on its device, weights in its format.

    The whole tower is converted (autocast costs more than it saves: measured at half the speed), except batch
    normalisation, which keeps its float32 statistics and takes bfloat16 input: rounding them to 8 bits of mantissa
    costs MobileNetV2 a third of the hits that bfloat16 changes at all (overlap of the top 20: 0.976, rounded 0.966).
    """
    kept = {
        name: {key: value.clone() for key, value in layer.state_dict().items()}
        for name, layer in model.named_modules()
        if arithmetic.precision != "fp32" and isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
    }
    model = model.to(device=arithmetic.device, dtype=dtype_of(torch, arithmetic.precision))
    for name, state in kept.items():
        layer = model.get_submodule(name).float()
        layer.load_state_dict(state)
    return model
