"""XMP sidecars: what people said of an image (rating, title, tags), written so that digiKam and Lightroom read it.

Pure. What another program wrote into a sidecar stays: only the rating, the title and the tags are brought up to
date. The properties are those of Adobe's XMP specification (part 1 and 2): `xmp:Rating`, `dc:title` as language
alternatives, `dc:subject` as a bag; tags with parents also as `lr:hierarchicalSubject` ("Places|Berlin") and
`digiKam:TagsList` ("Places/Berlin").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from search.errors import SearchError
from search.models.tag import tag_key

DIGIKAM, LIGHTROOM = "digikam", "lightroom"
NAMINGS = {DIGIKAM: "IMG.jpg.xmp, as digiKam and darktable name them", LIGHTROOM: "IMG.xmp, as Lightroom names them"}
MOST_BYTES = 8 << 20

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
_NAMESPACES = {
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
}
_MICROSOFTS = {"microsoft": "http://ns.microsoft.com/photo/1.0", "exiv2s": "http://ns.microsoft.com/photo/1.0/"}
"""The name of Microsoft's namespace, and how Exiv2 (so digiKam) spells it: only kept in step, never added."""
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_PERCENT = (0, 1, 25, 50, 75, 99)
_FRESH = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Image search">\n'
    f' <rdf:RDF xmlns:rdf="{_RDF}">\n  <rdf:Description rdf:about=""'
    + "".join(f'\n    xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items())
    + '/>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()


class BadSidecar(SearchError):
    """A sidecar that is there already cannot be understood, so nothing is written over it."""


@dataclass(frozen=True)
class Said:
    """What the catalogue says of one image."""

    rating: int | None = None
    """0 to 5; None where nobody gave one: what a sidecar says then stands."""
    title: str | None = None
    """"" where a person took it away; None where there never was one."""
    tags: tuple[tuple[str, ...], ...] = ()
    """Each from its outermost parent to its own name."""
    refused: frozenset[str] = frozenset()
    """Keys of tags that a person took off this image: they are taken out of a sidecar."""

    @property
    def nothing(self) -> bool:
        return self.rating is None and not self.title and not self.tags


def sidecar_name(name: bytes, naming: str) -> bytes:
    """The sidecar's file name for an original's."""
    return (os.path.splitext(name)[0] if naming == LIGHTROOM else name) + b".xmp"


def sidecar(said: Said, *, existing: bytes | None = None, extension: str = "", now: datetime | None = None) -> bytes:
    """The sidecar's bytes (UTF-8): a new one, or `existing` with rating, title and tags brought up to date.

    Returns `existing` itself where it says all of this already. `extension` marks a new sidecar that is named
    without it as that file's, and an existing one that does not say whose it is. Raises BadSidecar.
    """
    from lxml import etree

    root = _parse(existing if existing is not None else _FRESH)
    packet = _Packet(root)
    packet.rate(said.rating)
    packet.entitle(said.title)
    packet.tag(said)
    packet.belong(extension)
    if existing is not None and not packet.changed:
        return existing
    packet.first.set(_name("xmp:MetadataDate"), (now or datetime.now(UTC)).isoformat(timespec="seconds"))
    if existing is None:
        etree.cleanup_namespaces(root)
        etree.indent(root, space=" ")
    declared = existing is not None and b"<?xml " in existing[:80].replace(b"\0", b"")
    return etree.tostring(root.getroottree(), encoding="UTF-8", xml_declaration=declared)


def extension_meant(data: bytes) -> str:
    """Which file a sidecar named without the extension is for: "CR2", or "" where it does not say.

    Raises BadSidecar.
    """
    packet = _Packet(_parse(data))
    return next(iter(packet.plain("photoshop:SidecarForExtension")), "").upper()


def _parse(data: bytes) -> Any:
    from lxml import etree

    if len(data) > MOST_BYTES:
        raise BadSidecar(f"The sidecar has {len(data) / 1e6:.0f} MB, more than any sidecar needs; it was left alone.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data.strip(b" \r\n\t"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        said = str(error).partition(", line")[0]
        raise BadSidecar(f"The sidecar that is there is no whole XML ({said}); it was left alone.") from error
    if root.getroottree().docinfo.doctype:
        raise BadSidecar("The sidecar that is there has a document type, which XMP never has; it was left alone.")
    return root


class _Packet:
    """The properties of one XMP document; `changed` says whether any was altered."""

    def __init__(self, root: Any) -> None:
        from lxml import etree

        self._etree = etree
        rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f".//{{{_RDF}}}RDF")
        if rdf is None:
            raise BadSidecar("The file that is there holds no XMP; it was left alone.")
        self.blocks = rdf.findall(f"{{{_RDF}}}Description")
        if not self.blocks:
            self.blocks = [etree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})]
        self.first = self.blocks[0]
        self.changed = False

    def plain(self, name: str) -> Iterator[str]:
        """The values of a property that is one text, an attribute or an element."""
        for block in self.blocks:
            if (value := block.get(_name(name))) is not None:
                yield value.strip()
            for element in block.findall(_name(name)):
                yield (element.text or "").strip()

    def belong(self, extension: str) -> None:
        if extension and not any(self.plain("photoshop:SidecarForExtension")):
            self._set("photoshop:SidecarForExtension", _text(extension.upper()))

    def rate(self, rating: int | None) -> None:
        if rating is None:
            return
        self._set("xmp:Rating", str(rating))
        for prefix in _MICROSOFTS:
            if list(self.plain(f"{prefix}:Rating")):
                self._set(f"{prefix}:Rating", str(_PERCENT[rating]))

    def _set(self, name: str, value: str) -> None:
        if list(self.plain(name)) == [value]:
            return
        for block in self.blocks:
            block.attrib.pop(_name(name), None)
            for element in block.findall(_name(name)):
                _remove(element)
        self.first.set(_name(name), value)
        self.changed = True

    def entitle(self, title: str | None) -> None:
        if title is None:
            return
        title = _text(title)
        for block in self.blocks:
            if block.attrib.pop(_name("dc:title"), None) is not None:  # not as the specification has it
                self.changed = True
        found = [element for block in self.blocks for element in block.findall(_name("dc:title"))]
        items = [item for element in found for item in element.iter(_name("rdf:li"))]
        mine = [item for item in items if item.get(f"{{{_XML}}}lang", "x-default") == "x-default"]
        if [item.text or "" for item in mine] == ([title] if title else []) and bool(items) == bool(found):
            return
        self.changed = True
        for item in mine:
            _remove(item)
        for element in found:
            if not list(element.iter(_name("rdf:li"))):
                _remove(element)
        if not title:
            return
        element = next((one for one in found if one.getparent() is not None), None)
        alternatives = element.find(_name("rdf:Alt")) if element is not None else None
        if alternatives is None:
            if element is not None:
                _remove(element)
            alternatives = self._new("dc:title", "Alt")
        item = self._etree.Element(_name("rdf:li"), {f"{{{_XML}}}lang": "x-default"})
        item.text = title
        alternatives.insert(0, item)

    def tag(self, said: Said) -> None:
        leaves = [_text(path[-1]) for path in said.tags]
        self._list("dc:subject", "Bag", leaves, said.refused, None)
        deep = any(len(path) > 1 for path in said.tags)
        for name, kind, mark in (("lr:hierarchicalSubject", "Bag", "|"), ("digiKam:TagsList", "Seq", "/")):
            # A name that holds the mark itself would be read as another tag's child.
            paths = [mark.join(map(_text, path)) for path in said.tags if not any(mark in part for part in path)]
            there = any(block.find(_name(name)) is not None for block in self.blocks)
            self._list(name, kind, paths if deep or there else [], said.refused, mark)
        for prefix in _MICROSOFTS:
            self._list(f"{prefix}:LastKeywordXMP", "Bag", [], said.refused, None)

    def _list(self, name: str, kind: str, wanted: list[str], refused: frozenset[str], mark: str | None) -> None:
        """Add what lacks, take out what is refused, leave everything else and its order."""
        found = [element for block in self.blocks for element in block.findall(_name(name))]
        there = set()
        for item in [item for element in found for item in element.iter(_name("rdf:li"))]:
            text = item.text or ""
            leaf = text.rsplit(mark, 1)[-1] if mark else text
            if tag_key(leaf) in refused:
                _remove(item)
                self.changed = True
            else:
                there.add(tag_key(leaf))
        container = next((one for element in found for one in element if len(element)), None)
        for text in wanted:
            key = tag_key(text.rsplit(mark, 1)[-1] if mark else text)
            if not key or key in there:
                continue
            if container is None:
                for element in found:
                    _remove(element)
                container = self._new(name, kind)
            item = self._etree.SubElement(container, _name("rdf:li"))
            item.text = text
            there.add(key)
            self.changed = True
        for element in found:
            if element.getparent() is not None and not list(element.iter(_name("rdf:li"))) and not element.text:
                _remove(element)
                self.changed = True

    def _new(self, name: str, kind: str) -> Any:
        prefix = name.partition(":")[0]
        element = self._etree.SubElement(self.first, _name(name), nsmap={prefix: _NAMESPACES[prefix]})
        return self._etree.SubElement(element, _name(f"rdf:{kind}"))


def _remove(element: Any) -> None:
    """Take an element out; lxml would take the white space behind it along, which does no harm here."""
    element.getparent().remove(element)


def _name(prefixed: str) -> str:
    prefix, _, local = prefixed.partition(":")
    return f"{{{({'rdf': _RDF} | _NAMESPACES | _MICROSOFTS)[prefix]}}}{local}"


def _text(text: str) -> str:
    """Without what XML cannot hold."""
    return _NOT_IN_XML.sub("", text)


def paths_of(tags: Iterable[int], rows: dict[int, tuple[str, int | None]]) -> tuple[tuple[str, ...], ...]:
    """Each tag from its outermost parent down; `rows` hold name and parent by id. A circle ends where it closes."""
    paths = []
    for tag in tags:
        path: list[str] = []
        seen: set[int] = set()
        at: int | None = tag
        while at is not None and at in rows and at not in seen:
            seen.add(at)
            path.append(rows[at][0])
            at = rows[at][1]
        paths.append(tuple(reversed(path)))
    return tuple(sorted(paths, key=lambda path: tag_key(path[-1])))
