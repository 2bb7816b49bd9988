"""What a crawl leaves out: gitignore-style globs relative to the source's root, compiled into few regexes.

`pathspec` translates each glob; this module joins the translations, because a walk asks for every file.
Folders that are left out are not walked, so a question about a file never has to look at its parents again:
globs without a slash are asked about the bare name only. Where a later `!glob` takes back an earlier one,
the last glob that fits decides, as in git.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from ingestion.errors import BadPattern

Test = Callable[[bytes], object]
"""Takes a bare name (of a folder: with a slash at its end); true when it is left out."""

_ANYWHERE = "^(?:.+/)?"
_ONE_CHARACTER = re.compile(r"\[(?!\^/\])|\[\^/\](?![*+])")
"""What stands for one character and not for one byte: such globs are asked about decoded names."""


@dataclass(frozen=True)
class _Glob:
    regex: str
    leaves_out: bool
    folders_only: bool
    by_name: bool


@dataclass(frozen=True)
class _Run:
    """Neighbouring globs of one sign."""

    leaves_out: bool
    name: Test | None
    path: Test | None


class Rules:
    """Compiled globs. Paths and names are the bytes that the file system holds."""

    def __init__(self, globs: Iterable[str]) -> None:
        parsed = [one for one in map(_parse, globs) if one is not None]
        self._files = _compile([one for one in parsed if not one.folders_only])
        self._folders = _compile(parsed)

    def file_test(self, folder: bytes) -> Test | None:
        """The question to ask about the names of files in this folder (relative, "" for the root); None: keep all."""
        return _test(self._files, folder)

    def folder_test(self, folder: bytes) -> Test | None:
        """The same for the names of folders, each given with a slash at its end."""
        return _test(self._folders, folder)

    def pruned_at(self, path: bytes) -> bytes | None:
        """The first folder on the way down to this folder (relative) that is left out; None when none is."""
        walked = b""
        for name in filter(None, path.split(b"/")):
            test = self.folder_test(walked)
            walked = walked + b"/" + name if walked else name
            if test and test(name + b"/"):
                return walked
        return None


def literal(glob: str) -> str:
    """A glob as given in a setting or on the command line, where no line is a comment."""
    return "\\" + glob if glob.startswith("#") else glob


def lines(text: str) -> list[str]:
    """The globs of `Source.excludes`: one a line, `#` starts a comment."""
    return text.splitlines()


def _parse(glob: str) -> _Glob | None:
    from pathspec.patterns.gitignore import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        regex, include = GitIgnoreSpecPattern.pattern_to_regex(glob)
    except GitIgnorePatternError:
        raise BadPattern(
            f"The exclude {glob!r} is no valid glob; write it as in a .gitignore file, for example *.tmp or cache/."
        ) from None
    if regex is None or include is None:
        return None
    text = regex if isinstance(regex, str) else regex.decode("latin-1")
    text = re.sub(r"\(\?P<\w+>", "(?:", text)
    # `$` also fits before a newline at the end, and names may end in one.
    text = re.sub(r"\|\$\)$", r"|\\Z)", text)
    core = glob.strip().removeprefix("!")
    by_name = "/" not in core.rstrip("/") and text.startswith(_ANYWHERE)
    return _Glob(
        regex=text.removeprefix(_ANYWHERE) if by_name else text,
        leaves_out=bool(include),
        folders_only=core.endswith("/"),
        by_name=by_name,
    )


def _compile(globs: list[_Glob]) -> list[_Run]:
    """Runs of one sign, last first."""
    runs = [
        _Run(
            leaves_out=sign,
            name=_join([one.regex for one in run if one.by_name]),
            path=_join([one.regex for one in run if not one.by_name]),
        )
        for sign, run in ((sign, list(group)) for sign, group in groupby(globs, key=lambda one: one.leaves_out))
    ]
    return runs[::-1]


def _join(regexes: list[str]) -> Test | None:
    if not regexes:
        return None
    joined = "|".join(f"(?:{one})" for one in dict.fromkeys(regexes))
    if _ONE_CHARACTER.search(joined):
        match = re.compile(joined, re.DOTALL).match
        return lambda name: match(os.fsdecode(name))
    return re.compile(joined.encode("utf-8"), re.DOTALL).match


def _test(runs: list[_Run], folder: bytes) -> Test | None:
    if not any(run.leaves_out for run in runs):
        return None
    if len(runs) == 1 and runs[0].path is None:
        return runs[0].name
    prefix = folder + b"/" if folder else b""

    def left_out(name: bytes) -> bool:
        for run in runs:
            if (run.name and run.name(name)) or (run.path and run.path(prefix + name)):
                return run.leaves_out
        return False

    return left_out
