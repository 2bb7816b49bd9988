"""The user guide and the reference documents, as pages: what lies in `docs/` is what `/help/` shows.

Markdown is rendered with Python-Markdown, once for each version of a file. Links between the documents lead to the
pages; what is not shown as a page (a licence, a folder) stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

REFERENCE = [
    "commands",
    "settings",
    "spaces",
    "matches",
    "identify",
    "review",
    "copies",
    "look-alikes",
    "backup",
    "deploy",
]
"""The documents beside the guide that people are shown, in this order."""

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_CHAPTER = re.compile(r"^\d+\. \[([^\]]+)\]\(([a-z-]+)\.md\)", re.MULTILINE)


@dataclass(frozen=True)
class Chapter:
    """One document: `slug` is its part of the address, `path` its file."""

    slug: str
    title: str
    path: Path


def guide() -> list[Chapter]:
    """The chapters of the guide, in the order in which docs/guide/README.md lists them."""
    listed = _CHAPTER.findall((_folder() / "README.md").read_text(encoding="utf-8"))
    return [Chapter(slug, title, _folder() / f"{slug}.md") for title, slug in listed]


def reference() -> list[Chapter]:
    """The reference documents that are there."""
    paths = [(name, settings.BASE_DIR / "docs" / f"{name}.md") for name in REFERENCE]
    return [Chapter(name, _title(path), path) for name, path in paths if path.is_file()]


def contents() -> list[Chapter]:
    """Everything that can be read, the guide first; of two that share a name the guide's is meant."""
    chapters = guide()
    taken = {one.slug for one in chapters}
    return chapters + [
        one if one.slug not in taken else Chapter(f"{one.slug}-reference", one.title, one.path) for one in reference()
    ]


def find(slug: str) -> Chapter | None:
    return next((one for one in contents() if one.slug == slug), None)


def picture(name: str) -> Path | None:
    """The file of a picture of the guide; None where there is none of that name."""
    path = _folder() / "pictures" / f"{name}.png"
    return path if path.is_file() else None


def rendered(chapter: Chapter) -> SafeString:
    """The document as HTML: its text comes with the program, not from people."""
    return _rendered(chapter, chapter.path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _rendered(chapter: Chapter, version: int) -> SafeString:
    import markdown

    text = _relinked(chapter.path.read_text(encoding="utf-8"), chapter.path)
    made = markdown.markdown(
        text,
        extensions=["tables", "fenced_code", "sane_lists", "toc"],
        extension_configs={"tables": {"use_align_attribute": True}, "toc": {"slugify": _anchor}},
        output_format="html",
    )
    made = re.sub(r"<table>", '<div class="table-scroll" tabindex="0" role="region" aria-label="Table"><table>', made)
    made = made.replace("</table>", "</table></div>").replace("<th>", '<th scope="col">')
    made = re.sub(r"<pre>", '<pre tabindex="0">', made)
    return mark_safe(made)


def _anchor(heading: str, separator: str) -> str:
    """The id of a heading, as GitHub makes it: links within the documents work in both places."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def _relinked(text: str, path: Path) -> str:
    """Links between files become links between pages."""
    known = {one.path.resolve(): one.slug for one in contents()}

    def address(match: re.Match[str]) -> str:
        words, link, part = match[1], match[2], match[3] or ""
        target = (path.parent / link).resolve()
        if target == (_folder() / "README.md").resolve():
            return f"[{words}]({reverse('help')})"
        if target in known:
            return f"[{words}]({reverse('help_chapter', args=[known[target]])}{part})"
        if target.suffix == ".png" and target.parent == (_folder() / "pictures").resolve():
            return f"[{words}]({reverse('help_picture', args=[target.stem])})"
        return words

    return _LINK.sub(address, text)


def _folder() -> Path:
    return Path(settings.BASE_DIR) / "docs" / "guide"


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").strip()
