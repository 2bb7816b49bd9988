"""Measurements of the program: see README.md beside this file."""

import imagesearch  # noqa: F401  # before numpy: it says how its threads wait
