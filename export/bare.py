"""An image file without what is no picture: names, places, devices, remarks, thumbnails.

Golden cases travel to every hospital, and a file from a clinic may say whose picture it is in a text chunk or in its EXIF.
What decides the pixels stays, to the bit; of the EXIF, that is its orientation.
"""

import io
import zlib
from collections.abc import Iterator

from PIL import Image

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_ORIENTATION = 0x0112  # TIFF 6.0, section 8
_APP1, _APP14, _APP15, _COM, _SOS, _EOI = 0xE1, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9


def bare(data: bytes) -> bytes:
    """The same picture in the same coding. ``data`` is a whole PNG or JPEG file that Pillow has decoded."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    kept = Image.Exif()
    kept[_ORIENTATION] = orientation
    exif = kept.tobytes() if orientation in range(2, 9) else b""
    return _png(data, exif.removeprefix(b"Exif\0\0")) if data.startswith(_PNG) else _jpeg(data, exif)


def _png(data: bytes, exif: bytes) -> bytes:
    """Chunks that every reader must know, and transparency (PNG third edition, section 5)."""
    made, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        kind = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if kind == b"IDAT" and exif:
            made.append(_chunk(b"eXIf", exif))
            exif = b""
        if kind[:1].isupper() or kind == b"tRNS":
            made.append(data[place:end])
        if kind == b"IEND":
            break
        place = end
    return b"".join(made)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _jpeg(data: bytes, exif: bytes) -> bytes:
    """Segments other than remarks and applications' own, but for JFIF's and Adobe's, which say what the colours are."""
    made = [_JPEG]
    if exif:
        made.append(bytes([0xFF, _APP1]) + (len(exif) + 2).to_bytes(2, "big") + exif)
    for marker, segment in _segments(data):
        if not (_APP1 <= marker <= _APP15 and marker != _APP14) and marker != _COM:
            made.append(segment)
    return b"".join(made)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each marker behind the first, with what belongs to it, up to the end of the image (ITU-T T.81, annex B)."""
    place = len(_JPEG)
    while place + 2 <= len(data):
        start = place
        while data[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = data[place + 1]
        if marker == _EOI:
            yield marker, data[place : place + 2]
            return
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SOS:  # its entropy-coded data goes on to the next marker that is no restart
            while data[place] != 0xFF or data[place + 1] == 0 or 0xD0 <= data[place + 1] <= 0xD7:
                place = data.index(0xFF, place + 1)
        yield marker, data[start:place]
