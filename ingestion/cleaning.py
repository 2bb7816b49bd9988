"""Texts out of files, made fit for a database and a page. Pure."""

from __future__ import annotations

import re

_UNWANTED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[\ud800-\udfff]")


def clean(text: str) -> str:
    """Without NUL, control characters and half surrogates (PostgreSQL takes none of them), stripped."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def one_line(text: str, longest: int) -> str:
    """`clean`, with single spaces, and no longer than that."""
    return " ".join(clean(text).split())[:longest].rstrip()
