"""The environment as settings: every variable the program reads, with its default and what it accepts.

A wrong value stops the program with one sentence that names the variable, its value and what it accepts.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import warnings
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from imagesearch import logs


@dataclass(frozen=True)
class Environment:
    """All settings that come from outside, validated."""

    data: Path
    spaces: Path
    thumbnails: Path
    models: Path
    logs: Path
    secret_key: str
    debug: bool
    https: bool
    allowed_hosts: list[str]
    trusted_origins: list[str]
    time_zone: str
    database: dict[str, Any]
    broker: dict[str, Any]
    encoder: str
    precision: str
    threads: int
    batch_size: int
    workers: int
    min_side: int
    review_ratio: float
    review_small: int
    review_blur: float
    review_plain: float
    look_alikes: int
    max_megapixels: float
    file_seconds: float
    excludes: list[str]
    mass_change: float
    stacks: bool
    max_results: int
    min_match: int
    upload_hours: float
    quiet_hours: list[tuple[int, int]]
    """(first, last) minutes of the day; across midnight where the first is the larger."""
    watch_folders: int | None
    """None: as many as the system lets."""
    audit_days: int
    proxies: int
    signin_attempts: int
    signin_minutes: float
    backups: Path | None
    backup_hours: float
    backup_keep: int
    host: str
    port: int | None
    """None when nobody asked for one: 8000, or the next free one."""
    logging: dict[str, Any]
    unknown: list[str]
    """One sentence for each IMAGESEARCH_ variable that the program does not read."""


DEFAULT_ENCODER = "ViT-B-32-256/datacomp_s34b_b86k"
DEFAULT_EXCLUDES = [
    ".*",
    "*.tmp",
    "*.part",
    "*.crdownload",
    "~*",
    "*~",
    "@eaDir/",
    "#recycle/",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "lost+found/",
    "__MACOSX/",
    "node_modules/",
    "*.lrdata/",
    "**/*.photoslibrary/resources/",
    "Thumbs.db",
    "desktop.ini",
]
NAMES = frozenset(
    [
        "DATABASE_URL",
        "REDIS_URL",
        "IMAGESEARCH_ENV_FILE",
        "IMAGESEARCH_DATA",
        "IMAGESEARCH_SPACES",
        "IMAGESEARCH_THUMBNAILS",
        "IMAGESEARCH_MODELS",
        "IMAGESEARCH_LOGS",
        "IMAGESEARCH_SECRET_KEY",
        "IMAGESEARCH_DEBUG",
        "IMAGESEARCH_HTTPS",
        "IMAGESEARCH_ALLOWED_HOSTS",
        "IMAGESEARCH_TRUSTED_ORIGINS",
        "IMAGESEARCH_TIME_ZONE",
        "IMAGESEARCH_ENCODER",
        "IMAGESEARCH_PRECISION",
        "IMAGESEARCH_THREADS",
        "IMAGESEARCH_BATCH_SIZE",
        "IMAGESEARCH_WORKERS",
        "IMAGESEARCH_MIN_SIDE",
        "IMAGESEARCH_REVIEW_RATIO",
        "IMAGESEARCH_REVIEW_SMALL",
        "IMAGESEARCH_REVIEW_BLUR",
        "IMAGESEARCH_LOOK_ALIKES",
        "IMAGESEARCH_REVIEW_PLAIN",
        "IMAGESEARCH_MAX_MEGAPIXELS",
        "IMAGESEARCH_FILE_SECONDS",
        "IMAGESEARCH_EXCLUDES",
        "IMAGESEARCH_MASS_CHANGE",
        "IMAGESEARCH_STACKS",
        "IMAGESEARCH_MAX_RESULTS",
        "IMAGESEARCH_MIN_MATCH",
        "IMAGESEARCH_UPLOAD_HOURS",
        "IMAGESEARCH_QUIET_HOURS",
        "IMAGESEARCH_WATCH_FOLDERS",
        "IMAGESEARCH_AUDIT_DAYS",
        "IMAGESEARCH_PROXIES",
        "IMAGESEARCH_SIGNIN_ATTEMPTS",
        "IMAGESEARCH_SIGNIN_MINUTES",
        "IMAGESEARCH_BACKUPS",
        "IMAGESEARCH_BACKUP_HOURS",
        "IMAGESEARCH_BACKUP_KEEP",
        "IMAGESEARCH_HOST",
        "IMAGESEARCH_PORT",
        "IMAGESEARCH_LOG_FORMAT",
        "IMAGESEARCH_LOG_LEVEL",
    ]
)
"""Every variable the program reads; each is documented in docs/settings.md."""
OF_THE_TESTS = frozenset(["IMAGESEARCH_SHARED", "IMAGESEARCH_FAULT", "IMAGESEARCH_CHROMIUM"])


def load(base: Path) -> Environment:
    """Read `.env`, or the file IMAGESEARCH_ENV_FILE names, without overriding the environment; then that.

    Raises ImproperlyConfigured: one sentence naming the variable, its value and what it accepts.
    """
    _read_env_file(base)
    data = _folder("IMAGESEARCH_DATA", base / "data", base)
    folder_of_logs = _folder("IMAGESEARCH_LOGS", data / "logs", base)
    return Environment(
        data=data,
        spaces=_folder("IMAGESEARCH_SPACES", data / "spaces", base),
        thumbnails=_folder("IMAGESEARCH_THUMBNAILS", data / "thumbnails", base),
        models=_folder("IMAGESEARCH_MODELS", data / "models", base),
        logs=folder_of_logs,
        debug=_yes_no("IMAGESEARCH_DEBUG", False),
        https=_yes_no("IMAGESEARCH_HTTPS", False),
        allowed_hosts=_allowed_hosts(),
        trusted_origins=_trusted_origins(),
        time_zone=_time_zone("IMAGESEARCH_TIME_ZONE", "UTC"),
        database=_database(data, base),
        broker=_broker(),
        encoder=_encoder(),
        precision=_choice("IMAGESEARCH_PRECISION", "auto", ["auto", "fp32", "bf16", "fp16"]),
        threads=int(_number("IMAGESEARCH_THREADS", 0, low=0, high=1024, whole=True)),
        batch_size=int(_number("IMAGESEARCH_BATCH_SIZE", 32, low=1, high=4096, whole=True)),
        workers=int(_number("IMAGESEARCH_WORKERS", 1, low=1, high=64, whole=True)),
        min_side=int(_number("IMAGESEARCH_MIN_SIDE", 32, low=1, high=100_000, whole=True)),
        min_match=int(_number("IMAGESEARCH_MIN_MATCH", 40, low=0, high=100, whole=True)),
        review_ratio=_number("IMAGESEARCH_REVIEW_RATIO", 3, low=1, high=1_000),
        review_small=int(_number("IMAGESEARCH_REVIEW_SMALL", 128, low=0, high=100_000, whole=True)),
        review_blur=_number("IMAGESEARCH_REVIEW_BLUR", 25, low=0, high=100_000),
        review_plain=_number("IMAGESEARCH_REVIEW_PLAIN", 0.97, low=0.01, high=1),
        look_alikes=int(_number("IMAGESEARCH_LOOK_ALIKES", 5, low=0, high=10, whole=True)),
        max_megapixels=_number("IMAGESEARCH_MAX_MEGAPIXELS", 300, low=1, high=100_000),
        file_seconds=_number("IMAGESEARCH_FILE_SECONDS", 60, low=1, high=86_400),
        excludes=_list("IMAGESEARCH_EXCLUDES", DEFAULT_EXCLUDES),
        mass_change=_number("IMAGESEARCH_MASS_CHANGE", 0.5, low=0, high=1),
        stacks=_yes_no("IMAGESEARCH_STACKS", True),
        max_results=int(_number("IMAGESEARCH_MAX_RESULTS", 1000, low=1, high=100_000, whole=True)),
        upload_hours=_number("IMAGESEARCH_UPLOAD_HOURS", 24, low=0.01, high=24 * 365),
        quiet_hours=_quiet_hours("IMAGESEARCH_QUIET_HOURS"),
        watch_folders=_watch_folders("IMAGESEARCH_WATCH_FOLDERS"),
        audit_days=int(_number("IMAGESEARCH_AUDIT_DAYS", 365, low=0, high=36_500, whole=True)),
        proxies=int(_number("IMAGESEARCH_PROXIES", 0, low=0, high=10, whole=True)),
        signin_attempts=int(_number("IMAGESEARCH_SIGNIN_ATTEMPTS", 5, low=1, high=1000, whole=True)),
        signin_minutes=_number("IMAGESEARCH_SIGNIN_MINUTES", 15, low=0.1, high=10_080),
        backups=_folder("IMAGESEARCH_BACKUPS", base, base) if _value("IMAGESEARCH_BACKUPS") else None,
        backup_hours=_number("IMAGESEARCH_BACKUP_HOURS", 24, low=0.1, high=24 * 365),
        backup_keep=int(_number("IMAGESEARCH_BACKUP_KEEP", 7, low=1, high=10_000, whole=True)),
        host=_host("IMAGESEARCH_HOST", "127.0.0.1"),
        port=int(_number("IMAGESEARCH_PORT", 0, low=1, high=65_535, whole=True)) or None,
        logging=logs.configuration(
            style=_choice("IMAGESEARCH_LOG_FORMAT", "text", ["text", "json"]),
            level=_choice("IMAGESEARCH_LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ),
        unknown=_unknown(),
        secret_key=_secret_key(data),  # the last one: a wrong setting leaves nothing behind
    )


def _value(name: str) -> str:
    if name not in NAMES:
        raise KeyError(f"{name} is not among NAMES")
    return os.environ.get(name, "").strip()


def _wrong(name: str, value: object, accepts: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} is {value!r}, but it accepts {accepts}.")


def _read_env_file(base: Path) -> None:
    named = _value("IMAGESEARCH_ENV_FILE")
    file = base / (Path(named).expanduser() if named else ".env")
    if not named and not file.exists():
        return
    try:
        file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ImproperlyConfigured(
            f"The settings file {file} cannot be read ({reason}): make it a readable text file, remove it, or "
            "correct IMAGESEARCH_ENV_FILE."
        ) from None
    environ.Env.read_env(str(file), overwrite=False)


def _unknown() -> list[str]:
    sentences = []
    for name in sorted(os.environ):
        if not name.startswith("IMAGESEARCH_") or name in NAMES or name in OF_THE_TESTS:
            continue
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists every setting."
        sentences.append(f"{name} is set, but there is no such setting: {hint}")
    return sentences


def _folder(name: str, default: Path, base: Path) -> Path:
    value = _value(name)
    if not value:
        return default
    accepts = "the path of a folder (it is made when it is not there)"
    try:
        path = Path(value).expanduser()
        path = path if path.is_absolute() else base / path
        if path.exists() and not path.is_dir():
            raise _wrong(name, value, accepts + "; this is a file")
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise _wrong(name, value, f"{accepts}; this one cannot be looked at ({reason})") from None


def _number(name: str, default: float, *, low: float, high: float, whole: bool = False) -> float:
    value = _value(name)
    if not value:
        return default
    accepts = f"a {'whole ' if whole else ''}number from {low:g} to {high:.12g}"
    try:
        number = float(value)
    except ValueError:
        raise _wrong(name, value, accepts) from None
    if not low <= number <= high or (whole and number != int(number)):
        raise _wrong(name, value, accepts)
    return number


def _choice(name: str, default: str, choices: list[str]) -> str:
    value = _value(name) or default
    for choice in choices:
        if value.casefold() == choice.casefold():
            return choice
    raise _wrong(name, value, "one of " + ", ".join(choices))


def _yes_no(name: str, default: bool) -> bool:
    value = _value(name)
    if not value:
        return default
    if value.lower() in {"1", "true", "yes", "on"}:
        return True
    if value.lower() in {"0", "false", "no", "off"}:
        return False
    raise _wrong(name, value, "1 or 0 (also true/false, yes/no, on/off)")


def _list(name: str, default: list[str]) -> list[str]:
    value = _value(name)
    return [part.strip() for part in value.split(",") if part.strip()] if value else list(default)


def _watch_folders(name: str) -> int | None:
    return int(_number(name, 0, low=0, high=100_000_000, whole=True)) if _value(name) else None


def _quiet_hours(name: str) -> list[tuple[int, int]]:
    spans = []
    for part in _list(name, []):
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)", part)
        hours = [int(number) for number in match.groups()] if match else [0] * 4
        span = (hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])
        if span[0] == span[1]:
            raise _wrong(name, _value(name), "spans of the day such as 22:00-07:00, separated by commas")
        spans.append(span)
    return spans


def _allowed_hosts() -> list[str]:
    name = "IMAGESEARCH_ALLOWED_HOSTS"
    hosts = _list(name, ["localhost", "127.0.0.1", "[::1]"])
    for host in hosts:
        if not re.fullmatch(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]", host):
            raise _wrong(
                name, host, "host names or addresses without scheme and port, separated by commas: photos.example.org"
            )
    return hosts


def _trusted_origins() -> list[str]:
    name = "IMAGESEARCH_TRUSTED_ORIGINS"
    origins = _list(name, [])
    for origin in origins:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise _wrong(
                name, origin, "origins with scheme and without path, separated by commas: https://photos.example.org"
            )
    return origins


def _host(name: str, default: str) -> str:
    value = _value(name) or default
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.%]+\]?", value):
        raise _wrong(name, value, "one address or host name of this machine, such as 127.0.0.1, ::1 or 0.0.0.0")
    return value.strip("[]")


def _time_zone(name: str, default: str) -> str:
    value = _value(name) or default
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise _wrong(name, value, "a time zone such as Europe/Berlin or UTC") from None
    return value


def _encoder() -> str:
    value = _value("IMAGESEARCH_ENCODER") or DEFAULT_ENCODER
    forms = r"look|local-dir:\S.*|onnx:\S.*|hf-hub:[^\s/]+/[^\s/]+|random:[^\s/]+|[^\s/:]+/\S.*"
    if not re.fullmatch(forms, value):
        raise _wrong(
            "IMAGESEARCH_ENCODER",
            value,
            f"ARCHITECTURE/WEIGHTS ({DEFAULT_ENCODER}), ARCHITECTURE/PATH-OF-A-CHECKPOINT, local-dir:FOLDER, "
            "onnx:FOLDER, hf-hub:ORGANISATION/NAME, or look",
        )
    return value


def _secret_key(data: Path) -> str:
    given = _value("IMAGESEARCH_SECRET_KEY")
    if given:
        if len(given) < 32:
            raise _wrong("IMAGESEARCH_SECRET_KEY", "***", "at least 32 characters")
        return given
    file = data / "secret_key"
    try:
        kept = file.read_text().strip() if file.exists() else ""
        if len(kept) >= 32:
            return kept
        return _make_secret_key(file, replace=file.exists())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file secret_key in it is not text"
        raise _wrong("IMAGESEARCH_DATA", str(data), f"a folder that can be read and written ({reason})") from None


def _make_secret_key(file: Path, *, replace: bool) -> str:
    """Write a new key whole or not at all; when another process was first, its key is the one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secrets.token_urlsafe(50))
        out.flush()
        os.fsync(out.fileno())
    try:
        if replace:
            os.replace(fresh, file)
        else:
            os.link(fresh, file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)
    return file.read_text().strip()


SQLITE = "imagesearch.sqlite3"
"""The database backend: Django's, with turns for writers."""


def _database(data: Path, base: Path) -> dict[str, Any]:
    value = _value("DATABASE_URL")
    if not value:
        config: dict[str, Any] = {"ENGINE": SQLITE, "NAME": str(data / "imagesearch.sqlite3")}
    else:
        config = _database_of_url(value)
    if config["ENGINE"].endswith("sqlite3"):
        config["ENGINE"] = SQLITE
        config["NAME"] = str(base / Path(config["NAME"]).expanduser())
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=30000; "
                # Kept connections share what the system caches of the file; all together have little of their own.
                "PRAGMA cache_size=-65536; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=2147418112; "
                "PRAGMA soft_heap_limit=134217728;"
            ),
        }
    else:
        config.setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
        config["CONN_HEALTH_CHECKS"] = True
    config["CONN_MAX_AGE"] = 60
    config["ATOMIC_REQUESTS"] = False
    return config


def _database_of_url(value: str) -> dict[str, Any]:
    accepts = "postgres://USER:PASSWORD@HOST:PORT/NAME or sqlite:///PATH-OF-A-FILE"
    shown = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = dict(environ.Env.db_url_config(value))
        int(config.get("PORT") or 0)
    except Exception:  # noqa: BLE001  whatever the parser stumbled over, the value is what is wrong
        raise _wrong("DATABASE_URL", shown, accepts) from None
    name = str(config.get("NAME") or "")
    if config.get("ENGINE") not in {"django.db.backends.sqlite3", "django.db.backends.postgresql"} or not name:
        raise _wrong("DATABASE_URL", shown, accepts)
    if config["ENGINE"].endswith("sqlite3") and ":memory:" in name:
        raise _wrong("DATABASE_URL", shown, accepts + " (several processes share it: it must be a file)")
    return config


def _broker() -> dict[str, Any]:
    value = _value("REDIS_URL")
    if not value:
        return {"orm": "default", "poll": 2}
    try:
        parts = urlsplit(value)
        fine = parts.scheme in {"redis", "rediss", "unix"} and bool(
            parts.path if parts.scheme == "unix" else parts.hostname
        )
        number = parts.path.strip("/") if parts.scheme != "unix" else ""
        fine = fine and (not number or number.isdigit()) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        shown = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", value)
        raise _wrong("REDIS_URL", shown, "redis://HOST:PORT/NUMBER (or rediss://..., unix:///PATH-OF-A-SOCKET)")
    return {"redis": value}
