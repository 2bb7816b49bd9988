"""What this process keeps of its newest results."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from search.kept import Kept


@dataclass
class Result:
    weight: int = 1
    made: float = field(default_factory=time.monotonic)


def held(kept: Kept[Result], names: str) -> str:
    return "".join(name for name in names if kept.get(name) is not None)


def test_the_least_recently_used_goes_first() -> None:
    kept: Kept[Result] = Kept(3, 60)
    for name in "abc":
        kept.put(name, Result(), keep=True)
    assert kept.get("a") is not None
    kept.put("d", Result(), keep=True)
    assert held(kept, "abcd") == "acd"


def test_what_is_too_old_or_not_to_be_kept_is_not_there() -> None:
    kept: Kept[Result] = Kept(3, 60)
    kept.put("a", Result(made=time.monotonic() - 61), keep=True)
    kept.put("b", Result(), keep=False)
    assert held(kept, "ab") == ""


def test_together_they_weigh_no_more_than_said_and_the_newest_stays() -> None:
    kept: Kept[Result] = Kept(100, 60, weigh=lambda one: one.weight, heaviest=10)
    for name in "abc":
        kept.put(name, Result(4), keep=True)
    assert held(kept, "abc") == "bc"
    kept.put("b", Result(1), keep=True)  # put again it weighs what it weighs now
    kept.put("d", Result(5), keep=True)
    assert held(kept, "abcd") == "bcd"
    kept.put("e", Result(50), keep=True)
    assert held(kept, "abcde") == "e"
    kept.put("f", Result(2), keep=True)
    assert held(kept, "ef") == "f"
    kept.clear()
    for name in "gh":
        kept.put(name, Result(5), keep=True)
    assert held(kept, "gh") == "gh"
