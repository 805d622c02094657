"""PNG files (W3C, third edition): every chunk is checked, and the decoder gets only the chunks of the picture.

Text and colour profiles of any size, which a decoder would refuse as decompression bombs, never reach it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
LONGEST_TEXT = 1 << 20  # unpacked bytes of a text that may hold the orientation
LARGEST_PROFILE = 1 << 24  # bytes, unpacked; those of presses have 2 to 4 million
GREY, RGB, PALETTE = 0, 2, 3  # colour types that may have a tRNS chunk
CHROMATICITIES = 8  # numbers of a cHRM chunk


@dataclass(frozen=True)
class PNG:
    """A PNG file taken apart.

    ``data`` is the file for a decoder, ``colour`` what it says of its colours, under the names of Pillow's ``info``.
    ``transparent`` is the colour of a greyscale or RGB file that is transparent, in the file's own depth. ``faults``
    are parts that were left out because they are damaged.
    """

    data: bytes
    depth: int
    transparent: tuple[int, ...] | None = None
    colour: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def loaded(self, image: Image.Image) -> Image.Image:
        """The image, which is that of :attr:`data`, with alpha where there is a transparent colour."""
        image.load()
        if self.transparent is None:
            return image
        opaque = Image.fromarray(np.where(self._matches(image), 0, 255).astype(np.uint8))
        image = upper_bits(image) if image.mode.startswith("I;16") else image
        image = image.convert("RGB" if image.mode == "RGB" else "L")
        image.putalpha(opaque)
        return image

    def _matches(self, image: Image.Image) -> NDArray[np.bool_]:
        key = np.array(self.transparent) & ((1 << self.depth) - 1)
        if image.mode == "RGB":
            high = np.asarray(image)
            if self.depth == 8:
                return np.asarray((high == key).all(2))
            return np.asarray((high == key >> 8).all(2) & (self._low_bytes() == key & 255).all(2))
        if image.mode.startswith("I;16"):
            return np.asarray(np.asarray(image) == key[0])
        return np.asarray(np.asarray(image.convert("L")) == key[0] * 255 // ((1 << self.depth) - 1))

    def _low_bytes(self) -> NDArray[np.uint8]:
        """Of 16-bit RGB the lower eight bits, which Pillow gives where it takes the file for little-endian."""
        with Image.open(io.BytesIO(self.data), formats=("PNG",)) as image:
            assert hasattr(image, "tile")
            image.tile = [part._replace(args="RGB;16L") for part in image.tile]
            return np.array(image)


def is_png(data: bytes) -> bool:
    """Whether a file begins as a PNG does."""
    return data.startswith(SIGNATURE)


def parsed(data: bytes) -> PNG:
    """Take a PNG file apart. Raises ``ValueError`` where a chunk is cut short, damaged or both needed and unknown."""
    kept: list[bytes | memoryview] = [SIGNATURE]
    found: dict[bytes, bytes] = {}
    header = b""
    for kind, content, whole in _chunks(data):
        if kind == b"IHDR":
            header = bytes(content)
        if _is_of_the_picture(kind, content, header):
            kept.append(whole)
        elif not kind[0] & 0x20:
            raise ValueError(f"its chunk {kind.decode('ascii', 'replace')} is of no known kind")
        elif kind not in TEXTS:
            found.setdefault(kind, bytes(content))
    if len(header) != 13:
        raise ValueError("it has no header")
    depth, colour_type = header[8], header[9]
    transparent, wrong = _transparent(found.get(b"tRNS"), colour_type)
    colour, faults = _colour(found)
    return PNG(b"".join(kept), depth, transparent, colour, (*faults, *wrong))


def upper_bits(image: Image.Image) -> Image.Image:
    """The upper eight bits of 16-bit greyscale."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, content and the whole of each chunk up to the last."""
    view, start, kind = memoryview(data), len(SIGNATURE), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise ValueError("it ends before its last chunk")
        length, kind = struct.unpack(">I4s", view[start : start + 8])
        end = start + 12 + length
        if end > len(data):
            raise ValueError("it ends inside a chunk")
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"its chunk {kind.decode('ascii', 'replace')} has a wrong checksum")
        yield kind, view[start + 8 : end - 4], view[start:end]
        start = end


def _is_of_the_picture(kind: bytes, content: memoryview, header: bytes) -> bool:
    if kind == b"tRNS":
        return header[9:10] == bytes([PALETTE])
    return kind in PICTURE or (kind in TEXTS and _may_tell_orientation(kind, bytes(content[: LONGEST_TEXT + 1])))


def _may_tell_orientation(kind: bytes, content: bytes) -> bool:
    if not content.startswith(ORIENTATION_TEXTS) or len(content) > LONGEST_TEXT:
        return False
    rest = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return _unpacked(rest[1:], LONGEST_TEXT) is not None
    if kind == b"iTXt" and rest[:1] == b"\1":
        return _unpacked(rest[2:].split(b"\0", 2)[-1], LONGEST_TEXT) is not None
    return True


def _unpacked(packed: bytes, limit: int) -> bytes | None:
    """What zlib packed; none where that is damaged or longer than ``limit``."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, limit)
    except zlib.error:
        return None
    return data if unpacker.eof else None


def _transparent(content: bytes | None, colour_type: int) -> tuple[tuple[int, ...] | None, list[str]]:
    count = {GREY: 1, RGB: 3}.get(colour_type, 0)
    if content is None or not count:
        return None, []
    if len(content) != 2 * count:
        return None, ["transparent colour"]
    return struct.unpack(f">{count}H", content), []


def _colour(found: dict[bytes, bytes]) -> tuple[dict[str, Any], list[str]]:
    """What chunks say of colours, and the names of those that are damaged."""
    colour: dict[str, Any] = {}
    faults = []
    if (cicp := found.get(b"cICP")) is not None:
        if len(cicp) == 4:
            colour["cicp"] = tuple(cicp)
        else:
            faults.append("colour space (cICP)")
    if (packed := found.get(b"iCCP")) is not None:
        profile = _unpacked(packed.partition(b"\0")[2][1:], LARGEST_PROFILE)
        if profile:
            colour["icc_profile"] = profile
        else:
            faults.append("colour profile")
    if b"sRGB" in found:
        colour["srgb"] = (found[b"sRGB"] or b"\0")[0]
    for kind, count, name in ((b"gAMA", 1, "gamma"), (b"cHRM", CHROMATICITIES, "chromaticity")):
        if (content := found.get(kind)) is not None:
            if len(content) == 4 * count:
                numbers = tuple(number / 100000 for number in struct.unpack(f">{count}I", content))
                colour[name] = numbers if count > 1 else numbers[0]
            else:
                faults.append(name)
    return colour, faults
