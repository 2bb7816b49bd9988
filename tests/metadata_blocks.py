"""EXIF, XMP and IPTC blocks for tests, and JPEG files that hold them."""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from ingestion.metadata import Metadata, read_metadata
from tests.picture_files import encoded, scene


def exif_block(
    image: dict[int, Any] | None = None, photo: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> bytes:
    exif = Image.Exif()
    exif.update(image or {})
    if photo:
        exif.get_ifd(0x8769).update(photo)
    if gps:
        exif.get_ifd(0x8825).update(gps)
    return exif.tobytes()


def xmp_packet(body: str, attributes: str = "") -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/" xmlns:digiKam="http://www.digikam.org/ns/1.0/">
<rdf:Description rdf:about="" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def iptc_block(*records: tuple[int, bytes], utf8: bool = False) -> bytes:
    data = b"\x1c\x01\x5a\x00\x03\x1b%G" if utf8 else b""
    return data + b"".join(
        b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value for number, value in records
    )


def jpeg(exif: bytes = b"", xmp: bytes = b"", iptc: bytes = b"") -> bytes:
    data = encoded(scene(64, 48), "JPEG", **({"exif": exif} if exif else {}), **({"xmp": xmp} if xmp else {}))
    if iptc:
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
        segment = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0" + struct.pack(">I", 3) + b"abc\0" + resource
        data = data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    return data


def read(**blocks: bytes) -> Metadata:
    return read_metadata(jpeg(**blocks))


def degrees(d: float, m: float = 0, s: float = 0) -> tuple[IFDRational, ...]:
    return tuple(IFDRational(round(part * 1000), 1000) for part in (d, m, s))
