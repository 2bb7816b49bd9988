"""The reversible step of the review queues: an image is kept out of one, or waits there again."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.utils import timezone

from search import review
from search.arrays import Ids
from search.models import Reviewed
from search.steps import KINDS, Outcome, Step, chunks, having, insert


class Review(Step):
    """Note that a person kept images in a queue (`on`), or forget that."""

    verb = "review"

    def __init__(self, ids: Ids, queue: str, on: bool) -> None:
        self.ids, self.queue, self.on = ids, queue, on

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Review:
        return cls(ids, value["queue"], value["on"])

    def value(self) -> dict[str, Any]:
        return {"queue": self.queue, "on": self.on}

    def only(self, ids: Ids) -> Review:
        return Review(self.ids[np.isin(self.ids, ids)], self.queue, self.on)

    def run(self, outcome: Outcome) -> None:
        rows = Reviewed.objects.filter(queue=self.queue)
        there = having(rows, self.ids)
        if self.on:
            done = np.setdiff1d(self.ids, there)
            insert(Reviewed, done, {"queue": self.queue, "created_at": timezone.now()})
        else:
            done = there
            for chunk in chunks(done):
                rows.filter(image__in=chunk).delete()
        review.settle(done, [self.queue])
        outcome.left = np.concatenate([outcome.left, np.setdiff1d(self.ids, done)])
        outcome.changed = np.concatenate([outcome.changed, done])
        if len(done):
            outcome.inverse.append(Review(done, self.queue, not self.on))


KINDS[Review.verb] = Review
