"""The file format: a header that says how to decode, and the payload of an entropy coder.

Version 2. Numbers of more than one byte are big-endian. A *varint* is an unsigned LEB128 number: seven bits a byte,
lowest first, the top bit set on all bytes but the last; below 2^64 and in its shortest form (no last byte of zero
but for the number 0 itself). A *text* is a varint, the length in bytes of what follows, and a raw DEFLATE stream
(RFC 1951, no zlib header) of 1 to 65536 bytes of UTF-8::

    offset  bytes   what
    0       3       magic: 0xB7, 'P', 'X'
    3       1       high nibble: version, 2
                    low nibble, flags: 1 a parameter, 2 a seed, 4 a caption, 8 an arithmetic
    4       1       recipe: number of a shipped recipe, 255 for a user recipe, or 0 where the spec is embedded
    5       2       checksum of the header: of its bytes before and after this field and the next
    7       2       checksum of the stream: of all its bytes before and after these two
    9       varint  height in pixels, less 1
            varint  width in pixels, less 1
            6       fingerprint of the prior
            2       parameter of the quantizer: a finite, positive bfloat16 number      only with flag 1
            varint  seed of the noise, not zero (without the flag the seed is zero)    only with flag 2
            text    caption                                                            only with flag 4
            text    arithmetic: 1 to 200 characters of printable ASCII                 only with flag 8
                    (or a byte 0 and a digest of two bytes)
            text    spec of the codec, JSON                                            only with recipe 0
            6       digest of the user recipe                                          only with recipe 255
            rest    payload

The arithmetic says in words what the encoder computed with, or identifies these words by their checksum. Streams whose
codec computes the same on every machine have none; what the others decode to depends on it.

Height and width are at most 65535 and their product at most 2^28, so a hostile header cannot ask for much memory.

Both checksums are CRC-16 with the polynomial 0x1021, the first value 0xFFFF, highest bit first (``binascii.crc_hqx``).
They find every single flipped bit.

A stream that was cut behind its header still decodes to what arrived whole: the coder's seals tell how far that is.
Its header has a checksum of its own, and is not used where that does not match.
"""

from __future__ import annotations

import re
import struct
import zlib
from binascii import crc_hqx
from dataclasses import dataclass

from pscx.config.recipes import DIGEST, USER_RECIPE
from pscx.errors import StreamError

MAGIC = b"\xb7PX"
VERSION = 2
HAS_PARAMETER, HAS_SEED, HAS_CAPTION, HAS_ARITHMETIC = 1, 2, 4, 8
HEADER_CHECK, STREAM_CHECK = slice(5, 7), slice(7, 9)
FINGERPRINT = 6  # bytes
SIDE_LIMIT, AREA_LIMIT, TEXT_LIMIT = 65535, 1 << 28, 1 << 16
ARITHMETIC = re.compile(r"[ -~]{0,200}")
SHORT_ARITHMETIC = re.compile(r"#[0-9a-f]{4}")


@dataclass(frozen=True)
class Header:
    """What a decoder must know before it reads the payload. Raises ``ValueError`` where a field is out of bounds.

    Args:
        height: of the image, in pixels, 1 to 65535.
        width: likewise; ``height * width`` is at most 2^28.
        fingerprint: six bytes that identify the prior.
        recipe: number of a shipped recipe, 1 to 254; 0 where ``spec`` holds the codec; 255 where ``digest`` names it.
        spec: the codec as JSON, at most 65536 bytes of UTF-8; not empty if and only if ``recipe`` is 0.
        parameter: of the quantizer, positive, finite and exact in bfloat16; or none.
        seed: seed of the noise, in [0, 2^64).
        caption: at most 65536 bytes of UTF-8.
        arithmetic: what the encoder computed with, at most 200 characters of printable ASCII, or the
            digest of these, ``#`` and four hexadecimal digits; empty where the codec is exact.
        digest: six bytes that identify a user recipe; not empty if and only if ``recipe`` is 255.
    """

    height: int
    width: int
    fingerprint: bytes
    recipe: int
    spec: str = ""
    parameter: float | None = None
    seed: int = 0
    caption: str = ""
    arithmetic: str = ""
    digest: bytes = b""

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if not 1 <= side <= SIDE_LIMIT:
                raise ValueError(f"{name} must lie in 1..{SIDE_LIMIT}, got {side}")
        if self.height * self.width > AREA_LIMIT:
            raise ValueError(f"height times width must be at most {AREA_LIMIT}, got {self.height} x {self.width}")
        if len(self.fingerprint) != FINGERPRINT:
            raise ValueError(f"fingerprint must have {FINGERPRINT} bytes, got {len(self.fingerprint)}")
        if not 0 <= self.recipe <= 255:
            raise ValueError(f"recipe must lie in 0..255, got {self.recipe}")
        if (self.recipe == 0) != bool(self.spec):
            raise ValueError(f"spec must be given if and only if recipe is 0, got recipe {self.recipe}")
        if len(self.digest) != (DIGEST if self.recipe == USER_RECIPE else 0):
            raise ValueError(
                f"digest must have {DIGEST} bytes if and only if recipe is {USER_RECIPE}, "
                f"got {len(self.digest)} and recipe {self.recipe}"
            )
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must lie in [0, 2^64), got {self.seed}")
        for name, text in (("spec", self.spec), ("caption", self.caption)):
            if len(text.encode()) > TEXT_LIMIT:
                raise ValueError(f"{name} must be at most {TEXT_LIMIT} bytes of UTF-8, got {len(text.encode())}")
        if not ARITHMETIC.fullmatch(self.arithmetic):
            raise ValueError(
                f"arithmetic must be at most 200 characters of printable ASCII, got {self.arithmetic!r:.80}"
            )
        if self.parameter is not None:
            _from_bfloat16(_to_bfloat16(self.parameter))

    @property
    def exact(self) -> bool:
        """Whether the codec is exact: a stream of one says nothing of the arithmetic it was made with."""
        return not self.arithmetic


def pack(header: Header, payload: bytes) -> bytes:
    """Header and payload as one stream."""
    flags, fields = 0, [_varint(header.height - 1), _varint(header.width - 1), header.fingerprint]
    if header.parameter is not None:
        flags |= HAS_PARAMETER
        fields.append(_to_bfloat16(header.parameter))
    if header.seed:
        flags |= HAS_SEED
        fields.append(_varint(header.seed))
    if header.caption:
        flags |= HAS_CAPTION
        fields.append(_deflate(header.caption))
    if header.arithmetic:
        flags |= HAS_ARITHMETIC
        fields.append(_arithmetic(header.arithmetic))
    if header.recipe == 0:
        fields.append(_deflate(header.spec))
    fields.append(header.digest)
    before = MAGIC + bytes([VERSION << 4 | flags, header.recipe])
    return sealed(before, b"".join(fields), payload)


def sealed(before: bytes, fields: bytes, payload: bytes) -> bytes:
    """A stream with both checksums, of the five bytes ``before`` them, the fields of the header and the payload."""
    start = before + _check(before, fields)
    return start + _check(start, fields, payload) + fields + payload


def is_whole(data: bytes) -> bool:
    """Whether the checksum of a stream matches: else it was damaged or cut."""
    return _check(data[: STREAM_CHECK.start], data[STREAM_CHECK.stop :]) == data[STREAM_CHECK]


def unpack(data: bytes, name: str = "stream", *, partial: bool = False) -> tuple[Header, bytes]:
    """Header and payload of a stream; ``name`` is what an error calls it.

    With ``partial`` the payload may be damaged or cut, see :func:`is_whole`; the header never. Raises ``StreamError``
    where it is not a pscx stream, of another version, damaged, cut short or out of bounds, and ``TypeError`` for what
    is no bytes.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[:3] != MAGIC:
        raise StreamError(f"{name} is not a pscx stream")
    if len(data) < STREAM_CHECK.stop:
        raise StreamError(f"{name} is cut short: {len(data)} bytes cannot hold a header")
    version = data[3] >> 4
    if version != VERSION:
        raise StreamError(f"{name} has version {version} of the stream format; this program reads version {VERSION}")
    whole = is_whole(data)
    if not (whole or partial):
        raise StreamError(
            f"{name} is damaged or cut short: its checksum does not match (decompress --partial shows what is whole)"
        )
    try:
        header, start = _parse(data)
    except (ValueError, zlib.error) as error:
        if whole:
            raise StreamError(f"{name} has a header that no encoder writes: {error}") from error
        if isinstance(error, CutError):
            raise StreamError(f"{name} is cut short: {len(data)} bytes do not hold its header") from error
        raise StreamError(f"{name} has a damaged header: {error}") from error
    if _check(data[: HEADER_CHECK.start], data[STREAM_CHECK.stop : start]) != data[HEADER_CHECK]:
        raise StreamError(f"{name} has a damaged header: its checksum does not match")
    return header, data[start:]


def _parse(data: bytes) -> tuple[Header, int]:
    """The header, and where the payload begins."""
    flags, recipe = data[3] & 15, data[4]
    fields = _Fields(data, STREAM_CHECK.stop)
    header = Header(
        height=fields.varint() + 1,
        width=fields.varint() + 1,
        fingerprint=fields.take(FINGERPRINT),
        recipe=recipe,
        parameter=_from_bfloat16(fields.take(2)) if flags & HAS_PARAMETER else None,
        seed=fields.seed() if flags & HAS_SEED else 0,
        caption=fields.text() if flags & HAS_CAPTION else "",
        arithmetic=fields.arithmetic() if flags & HAS_ARITHMETIC else "",
        spec=fields.text() if recipe == 0 else "",
        digest=fields.take(DIGEST) if recipe == USER_RECIPE else b"",
    )
    return header, fields.at


class CutError(ValueError):
    """A field that goes on behind the end of the data."""


class _Fields:
    """Reads one field after the other; raises ``ValueError`` where the data is not one."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self.at = data, start

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise CutError(f"a field of {count} bytes is cut short")
        self.at += count
        return self._data[self.at - count : self.at]

    def varint(self) -> int:
        value = 0
        for place in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << place
            if byte < 128:
                if value >> 64 or (place and not byte):
                    break
                return value
        raise ValueError("a number is not below 2^64 in its shortest form")

    def seed(self) -> int:
        value = self.varint()
        if value == 0:
            raise ValueError("a seed is flagged but zero")
        return value

    def arithmetic(self) -> str:
        if self._data[self.at : self.at + 1] == b"\0":
            return f"#{self.take(3)[1:].hex()}"
        words = self.text()
        if SHORT_ARITHMETIC.fullmatch(words):
            raise ValueError(f"an arithmetic in words is {words!r}, which is a digest")
        return words

    def text(self) -> str:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        content = inflater.decompress(self.take(self.varint()), TEXT_LIMIT + 1)
        if not inflater.eof or inflater.unused_data:
            raise ValueError(f"a text is not one deflated string of at most {TEXT_LIMIT} bytes")
        if not content:
            raise ValueError("a text is flagged but empty")
        return content.decode()


def _check(*parts: bytes) -> bytes:
    value = 0xFFFF
    for part in parts:
        value = crc_hqx(part, value)
    return value.to_bytes(2, "big")


def _varint(value: int) -> bytes:
    parts = [value & 127]
    while value := value >> 7:
        parts[-1] |= 128
        parts.append(value & 127)
    return bytes(parts)


def _deflate(text: str) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    content = packer.compress(text.encode()) + packer.flush()
    return _varint(len(content)) + content


def _arithmetic(said: str) -> bytes:
    return b"\0" + bytes.fromhex(said[1:]) if SHORT_ARITHMETIC.fullmatch(said) else _deflate(said)


def _to_bfloat16(value: float) -> bytes:
    try:
        single = struct.pack(">f", value)
    except OverflowError:
        single = struct.pack(">f", float("inf"))
    if struct.unpack(">f", single)[0] != value or any(single[2:]):
        raise ValueError(f"parameter must be exact in bfloat16, got {value}")
    return single[:2]


def _from_bfloat16(content: bytes) -> float:
    value: float = struct.unpack(">f", content + bytes(2))[0]
    if not 0 < value < float("inf"):
        raise ValueError(f"parameter must be positive and finite, got {value}")
    return value
