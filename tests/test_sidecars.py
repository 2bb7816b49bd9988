"""XMP sidecars: what is written, what of an existing one survives, and what exiftool and we ourselves read of it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from ingestion.metadata import read_metadata
from search.sidecars import DIGIKAM, LIGHTROOM, BadSidecar, Said, extension_meant, sidecar, sidecar_name

LIGHTROOMS = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <!-- kept -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
   xmp:Rating="2" crs:Exposure2012="+0.35" photoshop:SidecarForExtension="CR2">
   <dc:title><rdf:Alt><rdf:li xml:lang="de-DE">Strand</rdf:li>
     <rdf:li xml:lang="x-default">Beach</rdf:li></rdf:Alt></dc:title>
   <dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>Sand</rdf:li><rdf:li>wrong</rdf:li></rdf:Bag></dc:subject>
   <crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li><rdf:li>255, 255</rdf:li></rdf:Seq></crs:ToneCurve>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:mine="http://example.org/mine/"><mine:note>stays</mine:note></rdf:Description>
 </rdf:RDF>
</x:xmpmeta>"""
ODD = (
    "a & b <c> \"d\" 'e'",
    "日本語 ß é",
    "]]>",
    "  spaced   out ",
    "line\nbreak",
    "&amp; &#65;",
    "<!--",
    "\U0001f600",
)


@pytest.fixture(scope="session")
def exiftool() -> str:
    found = shutil.which("exiftool")
    if not found:
        pytest.skip("no exiftool here: apt-get install libimage-exiftool-perl")
    return found


def seen_by_exiftool(exiftool: str, path: Path) -> dict[str, object]:
    done = subprocess.run(
        [exiftool, "-j", "-G1", "-struct", "-charset", "utf8", "-api", "struct=2", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)[0]


def as_list(value: object) -> list[str]:
    return [] if value is None else [str(one) for one in value] if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize(
    ("rating", "title"), [*((n, "Beach") for n in range(6)), *((n % 2 * 3, odd) for n, odd in enumerate(ODD))]
)
def test_exiftool_reads_what_was_written(tmp_path: Path, exiftool: str, rating: int, title: str) -> None:
    path = tmp_path / "IMG.jpg.xmp"
    tags = (*((name.strip().replace("\n", " "),) for name in ODD), ("Places", "Germany", "Berlin"))
    path.write_bytes(sidecar(Said(rating, title, tags)))
    found = seen_by_exiftool(exiftool, path)
    assert found["XMP-xmp:Rating"] == rating
    assert str(found["XMP-dc:Title"]).split() == title.split()
    assert sorted(as_list(found["XMP-dc:Subject"])) == sorted(tag[-1] for tag in tags)
    assert "Places|Germany|Berlin" in as_list(found["XMP-lr:HierarchicalSubject"])
    assert "Places/Germany/Berlin" in as_list(found["XMP-digiKam:TagsList"])
    assert "ExifTool:Warning" not in found and "ExifTool:Error" not in found


def test_exiftool_validates_it_and_can_write_it_on(tmp_path: Path, exiftool: str) -> None:
    path = tmp_path / "IMG.xmp"
    path.write_bytes(sidecar(Said(4, "Ours", (("one",),)), extension="cr2"))
    subprocess.run([exiftool, "-q", "-overwrite_original", "-XMP-dc:Subject+=two", str(path)], check=True)
    again = sidecar(Said(1, "Ours", (("one",), ("three",))), existing=path.read_bytes(), extension="cr2")
    path.write_bytes(again)
    found = seen_by_exiftool(exiftool, path)
    assert found["XMP-xmp:Rating"] == 1 and found["XMP-dc:Subject"] == ["one", "two", "three"]
    assert found["XMP-photoshop:SidecarForExtension"] == "CR2"


def test_what_exiftool_wrote_is_read_by_us(tmp_path: Path, exiftool: str) -> None:
    path = tmp_path / "IMG.xmp"
    subprocess.run(
        [exiftool, "-q", "-XMP-xmp:Rating=0", "-XMP-dc:Title=Überall", "-XMP-dc:Subject=a", "-XMP-dc:Subject=b",
         str(path)], check=True,
    )  # fmt: skip
    said = read_metadata(b"", sidecars=[path.read_bytes()])
    assert (said.rating, said.title, said.keywords) == (0, "Überall", ["a", "b"])


def test_we_read_what_we_wrote() -> None:
    tags = tuple((" ".join(name.split()),) for name in ODD)
    said = read_metadata(b"", sidecars=[sidecar(Said(5, ODD[0], tags))])
    assert said.rating == 5 and said.title == ODD[0] and said.keywords == [tag[0] for tag in tags]


def test_unknown_fields_of_an_existing_sidecar_survive(tmp_path: Path, exiftool: str) -> None:
    path = tmp_path / "IMG.xmp"
    path.write_bytes(LIGHTROOMS)
    before = seen_by_exiftool(exiftool, path)
    said = Said(5, "Our title", (("Sea",), ("sun",)), frozenset({"wrong"}))
    path.write_bytes(sidecar(said, existing=LIGHTROOMS))
    after = seen_by_exiftool(exiftool, path)
    ours = {"XMP-xmp:Rating", "XMP-dc:Title", "XMP-dc:Subject", "XMP-xmp:MetadataDate"}
    for name in before.keys() - ours:
        if not name.startswith(("System:", "File:", "ExifTool:")):
            assert after[name] == before[name], name
    assert after["XMP-xmp:Rating"] == 5
    assert (
        after["XMP-dc:Title"] == {"x-default": "Our title", "de-DE": "Strand"} or after["XMP-dc:Title"] == "Our title"
    )
    assert after["XMP-dc:Subject"] == ["sea", "Sand", "sun"]
    text = path.read_text()
    assert "Strand" in text and "mine:note" in text and "<!-- kept -->" in text and "ns0:" not in text


def test_a_sidecar_that_says_it_all_is_returned_as_it_is() -> None:
    said = Said(3, "T", (("a",), ("b", "c")))
    made = sidecar(said)
    assert sidecar(said, existing=made) is made
    assert sidecar(Said(), existing=LIGHTROOMS) is LIGHTROOMS


def test_what_nobody_said_is_left_as_it_stands() -> None:
    changed = read_metadata(b"", sidecars=[sidecar(Said(None, None, (("new",),)), existing=LIGHTROOMS)])
    assert changed.rating == 2 and changed.title == "Beach" and changed.keywords == ["sea", "Sand", "wrong", "new"]
    emptied = read_metadata(b"", sidecars=[sidecar(Said(0, "", ()), existing=LIGHTROOMS)])
    assert emptied.rating == 0 and emptied.title == "Strand" and emptied.keywords == ["sea", "Sand", "wrong"]


def test_element_and_attribute_forms_and_other_programs_lists_are_kept_in_step() -> None:
    existing = b"""<?xml version="1.0"?><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/"
      xmlns:digiKam="http://www.digikam.org/ns/1.0/" MicrosoftPhoto:Rating="25"><xmp:Rating>2</xmp:Rating>
    <digiKam:TagsList><rdf:Seq><rdf:li>Places/Rome</rdf:li><rdf:li>old</rdf:li></rdf:Seq></digiKam:TagsList>
    <MicrosoftPhoto:LastKeywordXMP><rdf:Bag><rdf:li>old</rdf:li></rdf:Bag></MicrosoftPhoto:LastKeywordXMP>
    </rdf:Description></rdf:RDF>"""
    made = sidecar(Said(4, None, (("Rome",), ("a/b",), ("new",)), frozenset({"old"})), existing=existing)
    assert made.startswith(b"<?xml") and made.count(b"Rating") == 2 and b'MicrosoftPhoto:Rating="75"' in made
    said = read_metadata(b"", sidecars=[made])
    assert said.rating == 4 and sorted(said.keywords) == ["Rome", "a/b", "new"]
    assert b"Places/Rome" in made and b">old<" not in made and made.count(b"a/b") == 1


@pytest.mark.parametrize(
    ("existing", "says"),
    [
        (b"", "no whole XML"),
        (b"not xml", "no whole XML"),
        (LIGHTROOMS[:-20], "no whole XML"),
        (b"<html></html>", "holds no XMP"),
        (
            b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + LIGHTROOMS.replace(b"Beach", b"&e;"),
            "document type",
        ),
        (b" " * (9 << 20), "more than any sidecar needs"),
    ],
)
def test_what_cannot_be_understood_is_never_written_over(existing: bytes, says: str) -> None:
    with pytest.raises(BadSidecar, match=says):
        sidecar(Said(3), existing=existing)


def test_other_encodings_and_wrappers(exiftool: str, tmp_path: Path) -> None:
    wide = b"\xff\xfe" + LIGHTROOMS.decode().encode("utf-16-le")
    assert read_metadata(b"", sidecars=[sidecar(Said(1), existing=wide)]).rating == 1
    packet = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n' + LIGHTROOMS + b'\n<?xpacket end="w"?>'
    made = sidecar(Said(1), existing=packet)
    assert made.startswith(b"<?xpacket begin") and made.rstrip().endswith(b'<?xpacket end="w"?>')


def test_any_text_survives() -> None:
    chance = random.Random(7)
    for _ in range(300):
        codes = [chance.choice([chance.randrange(33, 127), chance.randrange(0xA1, 0xD800)]) for _ in range(6)]
        codes += [chance.choice([chance.randrange(0xE000, 0xFDD0), chance.randrange(0x10000, 0x1FFF0)])]
        text = " ".join("".join(map(chr, codes)).split())
        said = read_metadata(b"", sidecars=[sidecar(Said(1, text, ((text,),)))])
        assert said.title == text and said.keywords == [text]


def test_names() -> None:
    assert sidecar_name(b"IMG.1.jpg", DIGIKAM) == b"IMG.1.jpg.xmp"
    assert sidecar_name(b"IMG.1.jpg", LIGHTROOM) == b"IMG.1.xmp"
    assert extension_meant(LIGHTROOMS) == "CR2" and extension_meant(sidecar(Said(1))) == ""
