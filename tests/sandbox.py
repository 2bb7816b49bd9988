"""A whole installation of its own: data folder and database, driven by `manage.py` in processes of their own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


_migrated: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
"""Server and settings -> the copy of a database just migrated: a file's path, or a database's name on that server."""


def _run_sql(server: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(statement)


class Sandbox:
    """Scratch data folder and database; `manage()` runs a command against them and returns what it printed.

    With DATABASE_URL pointing at PostgreSQL a database is created for it (and dropped by `close`),
    else it is a SQLite file in the data folder.
    """

    def __init__(self, path: Path, **env: str) -> None:
        self.data = path / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "IMAGESEARCH_DATA": str(self.data), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        self.env.pop("DJANGO_SETTINGS_MODULE", None)
        self._created: str | None = None
        url = os.environ.get("DATABASE_URL", "")
        self._server = url.rsplit("/", 1)[0] if url.startswith("postgres") else ""
        self.env.pop("DATABASE_URL", None)
        self.env.update(env)
        self._make_database(tuple(sorted(env.items())))

    def _make_database(self, made_with: tuple[tuple[str, str], ...]) -> None:
        """The first sandbox with these settings migrates and leaves a copy; those after it begin with that copy."""
        key = (self._server, made_with)
        if self._server:
            self._created = f"sandbox_{uuid.uuid4().hex[:12]}"
            self.env["DATABASE_URL"] = f"{self._server}/{self._created}"
            copy_of = f' TEMPLATE "{_migrated[key]}"' if key in _migrated else ""
            _run_sql(self._server, f'CREATE DATABASE "{self._created}"{copy_of}')
            if key not in _migrated:
                self.manage("migrate", "--verbosity", "0")
                kept = f"{self._created}_migrated"
                _run_sql(self._server, f'CREATE DATABASE "{kept}" TEMPLATE "{self._created}"')
                atexit.register(_run_sql, self._server, f'DROP DATABASE IF EXISTS "{kept}" WITH (FORCE)')
                _migrated[key] = kept
            return
        database = self.data / "imagesearch.sqlite3"
        if key in _migrated:
            shutil.copy(_migrated[key], database)
            return
        self.manage("migrate", "--verbosity", "0")
        assert not database.with_name(f"{database.name}-wal").exists(), "the copy would not be whole"
        kept_in = tempfile.mkdtemp(prefix="imagesearch-migrated-")
        atexit.register(shutil.rmtree, kept_in, ignore_errors=True)
        _migrated[key] = shutil.copy(database, kept_in)

    def manage(
        self, *args: str | os.PathLike[str], check: bool = True, timeout: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *map(str, args)],
            env={**self.env, **env}, cwd=ROOT, text=True, capture_output=True, timeout=timeout,
            errors="backslashreplace",
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"manage.py {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def report(self, *args: str | os.PathLike[str], check: bool = True, **env: str) -> Any:
        """The JSON that the command's last line of output holds."""
        return json.loads(self.manage(*args, "--json", check=check, **env).stdout.strip().splitlines()[-1])

    def popen(self, *args: str | os.PathLike[str], **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), *map(str, args)],
            env={**self.env, **env}, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def close(self) -> None:
        if self._created:
            _run_sql(self._server, f'DROP DATABASE IF EXISTS "{self._created}" WITH (FORCE)')
        shutil.rmtree(self.data, ignore_errors=True)
