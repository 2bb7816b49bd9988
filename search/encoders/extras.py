"""What some models need beside OpenCLIP itself, said before gigabytes are downloaded. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from search.encoders.specification import Kind, Specification, architecture_file


def missing_package(specification: Specification, config: Path | None) -> str:
    """A sentence when this model's text tower needs a package that is not installed, else "".

    `config` is the model's own open_clip_config.json, None for an architecture that comes with OpenCLIP.
    """
    path = config or (architecture_file(specification.architecture) if specification.architecture else None)
    if specification.kind is Kind.LOOK or path is None:
        return ""
    try:
        content = json.loads(path.read_text())
        text = content.get("model_cfg", content).get("text_cfg", {})
    except (OSError, ValueError, AttributeError):
        return ""  # said when the model is loaded
    return missing_for(specification, text)


def missing_for(specification: Specification, text: dict[str, Any]) -> str:
    """The same, from the text part of the model's configuration."""
    siglip = "siglip" in specification.architecture.lower()
    needs = bool(text.get("hf_tokenizer_name") or text.get("hf_model_name") or siglip)
    if not needs or importlib.util.find_spec("transformers") is not None:
        return ""
    return (
        f"The text tower of {specification.label} needs the package transformers, which is not installed: install it "
        "into the program's environment (`.venv/bin/pip install transformers sentencepiece`), or choose another model "
        "with IMAGESEARCH_ENCODER."
    )
