"""A process that runs an errand portion by portion, to be killed: `python -m tests.errand_runner ERRAND`."""

from __future__ import annotations

import os
import sys

import django


def main(errand: int, portion: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    django.setup()
    from search import errands

    errands.PORTION = portion
    errands.run_portions(errand)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
