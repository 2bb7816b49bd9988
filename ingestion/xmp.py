"""XMP packets and IPTC records -> texts by name. Pure; XML bombs are refused by defusedxml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ingestion.cleaning import clean

Properties = dict[str, list[str]]
"""Values by prefixed name, as "dc:title"; the default language first."""

_MOST_BYTES = 8 * 1024 * 1024
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://cipa.jp/exif/1.0/": "exifEX",
    "http://ns.adobe.com/exif/1.0/aux/": "aux",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/lightroom/1.0/": "lr",
    "http://ns.microsoft.com/photo/1.0": "MicrosoftPhoto",
    "http://ns.microsoft.com/photo/1.0/": "MicrosoftPhoto",
    "http://www.digikam.org/ns/1.0/": "digiKam",
    "http://ns.acdsee.com/iptc/1.0/": "acdsee",
}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def read_xmp(packets: Iterable[bytes]) -> Properties:
    """The properties of all packets (an earlier packet wins); a packet that is no XML is left out."""
    properties: Properties = {}
    for packet in packets:
        root = _parse(packet)
        if root is None:
            continue
        for description in root.iter(_RDF + "Description"):
            for name, value in _described(description):
                properties.setdefault(name, value)
    return properties


def _parse(packet: bytes) -> Element | None:
    if len(packet) > _MOST_BYTES:
        return None
    if packet[:64].count(0) > 8:
        text = packet.decode("utf-16-be" if packet.lstrip(b"\xfe\xff")[:1] == b"\0" else "utf-16-le", "replace")
    else:
        text = packet.decode("utf-8", "replace")
    # From the first element to the last: packets come with wrappers, padding and bytes behind them.
    start = min((at for mark in ("<x:xmpmeta", "<rdf:RDF", "<xmpmeta") if (at := text.find(mark)) >= 0), default=-1)
    end = max(
        (at for mark in ("</x:xmpmeta>", "</rdf:RDF>", "</xmpmeta>") if (at := text.rfind(mark)) >= 0), default=-1
    )
    if 0 <= start < end:
        text = text[start : text.index(">", end) + 1]
    try:
        return fromstring(_CONTROLS.sub("", text.strip("\0\ufeff \r\n\t")))
    except (ParseError, DefusedXmlException, ValueError):
        return None


def _described(description: Element) -> Iterable[tuple[str, list[str]]]:
    for name, value in description.attrib.items():
        prefixed = _prefixed(name)
        if prefixed and (text := clean(value)):
            yield prefixed, [text]
    for child in description:
        prefixed = _prefixed(child.tag)
        if not prefixed:
            continue
        items = [item for kind in ("Alt", "Bag", "Seq") for item in child.findall(f"{_RDF}{kind}/{_RDF}li")]
        items.sort(key=lambda item: item.get(_LANGUAGE, "x-default") != "x-default")
        texts = [clean(item.text or "") for item in items] if items else [clean(child.text or "")]
        if texts := [text for text in texts if text]:
            yield prefixed, texts


def _prefixed(name: str) -> str | None:
    namespace, _, local = name.removeprefix("{").rpartition("}")
    prefix = _PREFIXES.get(namespace)
    return f"{prefix}:{local}" if prefix else None


def read_iptc(block: bytes | None) -> dict[int, list[str]]:
    """Texts of record 2 (the application record) by data set number."""
    found: dict[int, list[bytes]] = {}
    utf8 = False
    at = 0
    while block and at + 5 <= len(block):
        if block[at] != 0x1C:
            at += 1  # padding between records
            continue
        record, number, size = block[at + 1], block[at + 2], int.from_bytes(block[at + 3 : at + 5], "big")
        at += 5
        if size & 0x8000:  # an extended data set: the size of the size
            length = size & 0x7FFF
            size = int.from_bytes(block[at : at + length], "big")
            at += length
        value = block[at : at + size]
        at += size
        if record == 1 and number == 90:
            utf8 = value == b"\x1b%G"
        elif record == 2:
            found.setdefault(number, []).append(value)
    return {number: [text for raw in values if (text := _iptc_text(raw, utf8))] for number, values in found.items()}


def _iptc_text(raw: bytes, utf8: bool) -> str:
    try:
        return clean(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(raw.decode("utf-8" if utf8 else "cp1252", "replace"))
