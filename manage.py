#!/usr/bin/env python
"""Command line of the image search."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
        from django.db.utils import OperationalError
    except ImportError as error:
        raise SystemExit(
            f"{error}. The packages are not installed for this Python: run `make setup`, "
            "then `.venv/bin/python manage.py ...`."
        ) from error
    try:
        settings.INSTALLED_APPS  # noqa: B018  reads the settings: a wrong one is said before anything else
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if "--traceback" in sys.argv:
            raise
        raise SystemExit(str(error)) from None
    except OperationalError as error:
        if "--traceback" in sys.argv:
            raise
        raise SystemExit(database_sentence(str(error))) from None


def database_sentence(reason: str) -> str:
    """What to do when the database does not do its part."""
    first = next(iter(reason.strip().splitlines()), "no reason given").rstrip(".")
    if "no such table" in reason or "no such column" in reason:
        return f"The database is not prepared for this version ({first}). Run: python manage.py migrate"
    return f"The database cannot be used ({first}). See that it runs and that DATABASE_URL and the disk are right."


if __name__ == "__main__":
    main()
