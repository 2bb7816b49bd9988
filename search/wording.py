"""Counts as a sentence needs them."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: "0 images", "1 image", "12,000 images".

    `many` is only needed where an s at the end of `one` does not make it: `counted(2, "query", "queries")`.
    """
    return f"{number:,} {agreeing(number, one, many or one + 's')}"


def agreeing(number: int, one: str, many: str) -> str:
    """The form that goes with the number: `agreeing(1, "waits", "wait")` is "waits"."""
    return one if number == 1 else many
