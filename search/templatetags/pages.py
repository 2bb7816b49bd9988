"""What templates need to say about pictures: icons, numbers and dates for people."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from html import escape
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message
from django.template import Context
from django.template.loader import get_template
from django.utils import timezone as clock
from django.utils.dateformat import format as date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from search import keys
from search.models import Image
from search.views.grid import thumbnail_url

register = template.Library()

ICONS = {
    "search": '<circle cx="10.5" cy="10.5" r="6.5"/><path d="M15.5 15.5L21 21"/>',
    "picture": '<rect x="3" y="5" width="18" height="14" rx="2"/><path d="M3.5 17l5.5-6 4 4.5 2.5-2.5 5 4.5"/>'
    '<circle cx="15.5" cy="9.5" r="1.3"/>',
    "like": '<rect x="3" y="3" width="11" height="11" rx="2"/><path d="M18 9h1a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-8'
    'a2 2 0 0 1-2-2v-1"/>',
    "close": '<path d="M5 5l14 14M19 5L5 19"/>',
    "back": '<path d="M15 4l-8 8 8 8"/>',
    "on": '<path d="M9 4l8 8-8 8"/>',
    "menu": '<path d="M4 7h16M4 12h16M4 17h16"/>',
    "filter": '<path d="M4 6h16M7 12h10M10 18h4"/>',
    "eye": '<path d="M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z"/>'
    '<circle cx="12" cy="12" r="2.8"/>',
    "bin": '<path d="M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13"/>',
    "heart": '<path d="M12 20S3.5 14.8 3.5 9.2A4.6 4.6 0 0 1 12 6.9a4.6 4.6 0 0 1 8.5 2.3C20.5 14.8 12 20 12 20z"/>',
    "star": '<path d="M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1 5.9-5.2-2.8-5.2 2.8 1-5.9L3.5 9.7l5.9-.8z"/>',
    "tag": '<path d="M3.5 12.5V4.5h8l9 9-8 8z"/><circle cx="8" cy="9" r="1.4"/>',
    "album": '<rect x="3" y="8" width="18" height="12" rx="2"/><path d="M5.5 5h13M8 2.5h8"/>',
    "more": '<circle cx="5" cy="12" r="1"/><circle cx="12" cy="12" r="1"/><circle cx="19" cy="12" r="1"/>',
    "flag": '<path d="M6 21V4M6 4.5c4-2.5 7 2 12 0v8.5c-5 2-8-2.5-12 0"/>',
    "check": '<path d="M4.5 12.5l5 5L19.5 6.5"/>',
    "tick": '<rect x="3.5" y="3.5" width="17" height="17" rx="3"/><path d="M8 12.5l3 3 5.5-6.5"/>',
    "play": '<path d="M7 4.5v15l12-7.5z"/>',
    "pause": '<path d="M8 5v14M16 5v14"/>',
    "info": '<circle cx="12" cy="12" r="8.5"/><path d="M12 11v5.5M12 7.5v.5"/>',
    "words": '<path d="M4 5h16v11H9.5L5.5 19.5V16H4z"/>',
    "down": '<path d="M12 4v11M7 11l5 5 5-5M5 20h14"/>',
}


@register.simple_tag
@functools.cache
def icon(name: str) -> SafeString:
    """A small line drawing; decoration only, so every use stands beside words or an aria-label."""
    return format_html(
        '<svg viewBox="0 0 24 24" width="24" height="24" fill="none" stroke="currentColor" stroke-width="1.8" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{}</svg>',
        mark_safe(ICONS[name]),
    )


@register.simple_tag(takes_context=True)
def tiles(context: Context) -> SafeString:
    """The tiles of a grid: `tiles`, `selecting`, `selected_ids` and `favourite_ids` of the page."""
    known = {name: context.get(name, ()) for name in ("tiles", "selecting", "selected_ids", "favourite_ids")}
    return mark_safe(get_template("search/_tiles.jinja", using="jinja2").render({**known, "like": icon("like")}))


@register.simple_tag
def options(pairs: Iterable[tuple[Any, str]], chosen: Any = None) -> SafeString:
    """The options of a list to choose from: (value, what is said), and which value stands chosen."""
    made = [
        f'<option value="{value if type(value) is int else escape(value)}"'
        f"{' selected' if value == chosen else ''}>{escape(str(text))}</option>"
        for value, text in pairs
    ]
    return mark_safe("".join(made))


@register.filter
def thumbnail(image: Image) -> str:
    return thumbnail_url(image)


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as people say them: "40 s", "3 min", "2 h 05 min", "3 days"."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 90:
        return f"{max(whole, 1)} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{round(whole / 86_400)} days"


@register.filter
def bytes_of(number: int | None) -> str:
    """Bytes in steps of 1,000, as disks are sold: "3.6 MB"."""
    if number is None:
        return ""
    value = float(number)
    for unit in ["bytes", "kB", "MB", "GB"]:
        if value < 1000:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


@register.filter
def exposure(seconds: float | None) -> str:
    """Exposure time as cameras show it: "1/250 s", "2 s"."""
    if not seconds:
        return ""
    return f"1/{round(1 / seconds)} s" if seconds < 0.4 else f"{seconds:g} s"


@register.filter
def captured(image: Image) -> str:
    """The capture time on the camera's own clock, with its offset where it is known."""
    if image.captured_at is None:
        return ""
    if image.captured_offset is None:
        return f"{_moment(image.captured_at.astimezone(UTC))} (camera clock, zone unknown)"
    local = image.captured_at.astimezone(timezone(timedelta(minutes=image.captured_offset)))
    sign = "-" if image.captured_offset < 0 else "+"
    hours, minutes = divmod(abs(image.captured_offset), 60)
    return f"{_moment(local)} {sign}{hours:02d}:{minutes:02d}"


@register.filter
def said_to(crawl: Any, user: Any) -> str:
    """What a crawl has to say; folders of the server are named to those only who run the installation."""
    if user.is_staff or crawl.source.root_text == "/":
        return str(crawl.message)
    return str(crawl.message).replace(crawl.source.root_text, f"“{crawl.source.name}”")


def _moment(moment: datetime) -> str:
    return f"{moment.day} {date_format(moment, 'F Y, H:i:s')}"


@register.filter
def where(image: Image, whole: bool) -> str:
    """Where the file lies; folders of the server are named to those only who may change the picture (`whole`)."""
    return image.absolute_path_text if whole else f"{image.source.name}: {image.path_text}"


@register.filter
def file_time(image: Image) -> datetime:
    """The file's modification time in the pages' time zone."""
    return clock.localtime(datetime.fromtimestamp(image.mtime_ns / 1e9, tz=UTC))


@register.filter
def place(image: Image) -> str:
    """Latitude and longitude in degrees, with height where it is known."""
    if image.latitude is None or image.longitude is None:
        return ""
    height = "" if image.altitude is None else f", {image.altitude:.0f} m"
    return f"{image.latitude:.5f}, {image.longitude:.5f}{height}"


@register.filter
def megapixels(image: Image) -> str:
    millions = (image.width or 0) * (image.height or 0) / 1e6
    return f"{millions:.1f} megapixels" if millions >= 0.1 else ""


@register.filter
def action_of(message: Message) -> int | None:
    """The number of the Action that a message offers to undo."""
    for tag in (message.extra_tags or "").split():
        if tag.startswith("action-"):
            return int(tag.removeprefix("action-"))
    return None


@register.filter
def grouped(number: int | str | None) -> str:
    """A count with its thousands apart: 12,345; nothing for what is not known yet (a crawl that has just begun)."""
    return f"{number:,}" if isinstance(number, int) else ""


@register.simple_tag
def key_table() -> SafeString:
    """The table of keys as data for the script: nothing that runs."""
    return _key_table(keys.registered())


@functools.lru_cache(maxsize=1)
def _key_table(registered: tuple[int, int]) -> SafeString:
    return format_html('<div id="keys" hidden data-table="{}"></div>', json.dumps(keys.table(), ensure_ascii=False))


@register.filter
def spoken(row: keys.Key) -> list[str]:
    """The keys of a row as people read them."""
    return list(keys.spoken(row))
