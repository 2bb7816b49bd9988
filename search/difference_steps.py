"""The reversible step of look-alikes: images are told apart, or look alike again."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.contrib.auth import get_user_model
from django.utils import timezone

from search.arrays import Ids
from search.models import Difference
from search.steps import KINDS, Outcome, Step, chunks, having, insert


class TellApart(Step):
    """Note that a person (`by`, None: the command line) said that these images are different ones, or forget that."""

    verb = "different"

    def __init__(self, ids: Ids, mark: str, by: int | None, on: bool) -> None:
        self.ids, self.mark, self.by, self.on = ids, mark, by, on

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> TellApart:
        return cls(ids, value["mark"], value["by"], value["on"])

    def value(self) -> dict[str, Any]:
        return {"mark": self.mark, "by": self.by, "on": self.on}

    def only(self, ids: Ids) -> TellApart:
        return TellApart(self.ids[np.isin(self.ids, ids)], self.mark, self.by, self.on)

    def run(self, outcome: Outcome) -> None:
        rows = Difference.objects.filter(mark=self.mark)
        there = having(rows, self.ids)
        if self.on:
            done = np.setdiff1d(self.ids, there)
            there_still = self.by is not None and get_user_model()._default_manager.filter(pk=self.by).exists()
            by = self.by if there_still else None
            insert(Difference, done, {"mark": self.mark, "by_id": by, "created_at": timezone.now()})
        else:
            done = there
            for chunk in chunks(done):
                rows.filter(image__in=chunk).delete()
        outcome.left = np.concatenate([outcome.left, np.setdiff1d(self.ids, done)])
        outcome.changed = np.concatenate([outcome.changed, done])
        if len(done):
            outcome.inverse.append(TellApart(done, self.mark, self.by, not self.on))


KINDS[TellApart.verb] = TellApart
