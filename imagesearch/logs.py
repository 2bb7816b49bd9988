"""How the program logs: to stderr, readable or as JSON.

Every process logs to its stderr alone; whoever started it keeps that. Under `manage.py start` the
supervisor writes what its children say into rotated files below IMAGESEARCH_LOGS, one file for each
kind of process and one writer for each file, so that rotating loses nothing. Under systemd or in a
container the journal keeps it.

No logger of the program writes secrets, or what people search for, at INFO or above.
"""

from __future__ import annotations

from typing import Any


def configuration(*, style: str, level: str) -> dict[str, Any]:
    """Django's LOGGING for this style ("text" or "json") and this lowest level."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"},
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "format": "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s",
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger", "process": "pid"},
            },
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": style}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            # Each request's path would hold the query.
            "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            "django.request": {"level": "ERROR"},
            # These name every file or request at INFO.
            "httpx": {"level": "WARNING"},
            "PIL": {"level": "WARNING"},
            "axes": {"level": "WARNING"},
            "django-q": {"level": "WARNING" if level == "INFO" else level},
        },
    }
