"""Text as it is stored and compared."""

from __future__ import annotations

import unicodedata


def storable(text: str) -> str:
    """Without what no database or terminal takes: control characters become spaces, lone surrogates U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)


def clean(text: str) -> str:
    """What a person typed, as it is kept: storable, composed (NFC), single spaces."""
    return " ".join(unicodedata.normalize("NFC", storable(text)).split())


def fold(text: str) -> str:
    """The form under which texts are equal: composed (NFC) and case-folded."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
