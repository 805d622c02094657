from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace

import pytest

from pscx.errors import StreamError
from pscx.format.container import CHECK, MAGIC, Header, pack, unpack

SMALL = Header(128, 128, b"\x01\x02\x03\x04", recipe=1, parameter=0.5)


def random_header(source: random.Random) -> Header:
    height = source.choice([1, 128, 129, 16384, 65535, source.randint(1, 65535)])
    width = source.choice([1, source.randint(1, min(65535, (1 << 28) // height))])
    recipe = source.choice([0, 1, 255])
    texts = ["", "a boat", "čaj 茶 🙂", "x" * 65536, "".join(chr(source.randint(1, 0xD7FF)) for _ in range(300))]
    parameters = [None, 0.5, 2.0**-133, 3.3895313892515355e38, struct.unpack(">f", b"\x3d\x4d\0\0")[0]]
    return Header(
        height,
        width,
        source.randbytes(4),
        recipe,
        spec=source.choice(texts[1:]) if recipe == 0 else "",
        parameter=source.choice(parameters),
        seed=source.choice([0, 1, 127, 128, (1 << 64) - 1, source.getrandbits(64)]),
        caption=source.choice(texts),
        arithmetic=source.choice(["", "torch 2.13.0, cpu AVX2", "~" * 200]),
    )


def sealed(before: bytes, after: bytes) -> bytes:
    """A stream with a right checksum around any content."""
    start = MAGIC + before
    return start + zlib.crc32(start + after).to_bytes(4, "big") + after


def refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        unpack(data)


def test_bytes_of_a_header() -> None:
    stream = pack(SMALL, b"payload")
    assert stream == bytes.fromhex("b75058 11 01 fdb3356e 7f 7f 01020304 3f00") + b"payload"
    assert len(stream) - len(b"payload") == 17


def test_bytes_of_all_fields() -> None:
    header = Header(1, 300, b"abcd", recipe=0, spec="{}", parameter=1.0, seed=300, caption="hi", arithmetic="cpu")
    stream = pack(header, b"!")
    deflated = [zlib.compress(text.encode(), 9)[2:-4] for text in ("hi", "cpu", "{}")]
    texts = b"".join(bytes([len(text)]) + text for text in deflated)
    assert stream[:5] == MAGIC + b"\x1f\x00"
    assert stream[CHECK] == zlib.crc32(stream[:5] + stream[9:]).to_bytes(4, "big")
    assert stream[9:] == b"\x00\xab\x02abcd\x3f\x80\xac\x02" + texts + b"!"


def test_round_trip() -> None:
    source = random.Random(0)
    for _ in range(300):
        header, payload = random_header(source), source.randbytes(source.randint(0, 50))
        assert unpack(pack(header, payload)) == (header, payload)


def test_every_flipped_byte_and_every_truncation_is_refused() -> None:
    source = random.Random(1)
    header = replace(SMALL, recipe=0, spec='{"coder": "raw"}', seed=77, caption="a boat")
    for stream in (pack(SMALL, b"payload"), pack(header, source.randbytes(30))):
        for place in range(len(stream)):
            for flip in (1, 0x80, 0xFF, source.randint(1, 255)):
                refused(stream[:place] + bytes([stream[place] ^ flip]) + stream[place + 1 :])
            refused(stream[:place])
        refused(stream + b"\0")


def test_random_bytes_are_refused() -> None:
    source = random.Random(2)
    for _ in range(3000):
        content = source.randbytes(source.randint(0, 60))
        refused(content)
        refused(MAGIC + content)


def test_any_content_under_a_right_checksum_is_a_header_or_refused() -> None:
    source = random.Random(3)
    outcomes = {True: 0, False: 0}
    good = pack(replace(SMALL, recipe=0, spec="{}" * 40, seed=1 << 40, caption="a boat"), b"xyz")
    for _ in range(20_000):
        if source.random() < 0.5:
            data = sealed(bytes([16 + source.randrange(16), source.choice([0, 1])]), source.randbytes(40))
        else:
            place = source.randrange(9, len(good))
            after = good[9:place] + source.randbytes(1) + good[place + 1 :]
            data = sealed(good[3:5], after[: source.choice([len(after), source.randint(0, len(after))])])
        try:
            header, payload = unpack(data)
        except StreamError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert unpack(pack(header, payload)) == (header, payload)
    assert min(outcomes.values()) > 1000


def test_wrong_kind_and_newer_version_have_their_own_sentences() -> None:
    for data in (b"", b"\xb7P", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(StreamError, match=r"^boat\.pscx is not a pscx stream$"):
            unpack(data, "boat.pscx")
    with pytest.raises(StreamError, match=r"^boat\.pscx has version 2 .* reads version 1$"):
        unpack(MAGIC + b"\x20" + bytes(30), "boat.pscx")
    with pytest.raises(StreamError, match=r"^boat\.pscx is damaged or cut short"):
        unpack(pack(SMALL, b"payload")[:-1], "boat.pscx")
    with pytest.raises(StreamError, match="cut short: 8 bytes"):
        unpack(pack(SMALL, b"payload")[:8])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b"\x18\x01", b"\x7f\x7fabcd", "a field of 1 bytes is cut short"),
        (b"\x18\x01", b"\x7f\x7fabcd\x02\x03\x00", "flagged but empty"),
        (
            b"\x18\x01",
            b"\x7f\x7fabcd\x05" + zlib.compress(b"a\x1b[")[2:-4],
            "arithmetic must be at most 200 characters",
        ),
        (b"\x10\x01", b"\xff\x00\x7fabcd", "shortest form"),
        (b"\x10\x01", b"\xff\x80\x00\x7fabcd", "shortest form"),
        (b"\x12\x01", b"\x7f\x7fabcd" + b"\xff" * 9 + b"\x02", "below 2\\^64"),
        (b"\x12\x01", b"\x7f\x7fabcd" + b"\xff" * 11, "below 2\\^64"),
        (b"\x12\x01", b"\x7f\x7fabcd\x00", "seed is flagged but zero"),
        (b"\x11\x01", b"\x7f\x7fabcd\x7f\x80", "positive and finite, got inf"),
        (b"\x11\x01", b"\x7f\x7fabcd\x7f\xc0", "positive and finite, got nan"),
        (b"\x11\x01", b"\x7f\x7fabcd\xbf\x80", "positive and finite, got -1"),
        (b"\x11\x01", b"\x7f\x7fabcd\x00\x00", "positive and finite, got 0"),
        (b"\x10\x01", b"\xff\xff\x03\x7fabcd", "height must lie in 1..65535, got 65536"),
        (b"\x10\x01", b"\x7f\xff\xff\x03abcd", "width must lie in 1..65535, got 65536"),
        (b"\x10\x01", b"\xfe\xff\x03\xfe\xff\x03abcd", "height times width"),
        (b"\x10\x01", b"\x7f\x7fabc", "a field of 4 bytes is cut short"),
        (b"\x14\x01", b"\x7f\x7fabcd\x0aboat", "a field of 10 bytes is cut short"),
        (b"\x14\x01", b"\x7f\x7fabcd\x02\x03\x00", "flagged but empty"),
        (b"\x14\x01", b"\x7f\x7fabcd\x01\x07", "invalid block type"),
    ],
)
def test_bad_field(before: bytes, after: bytes, why: str) -> None:
    with pytest.raises(StreamError, match=why):
        unpack(sealed(before, after))


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def with_caption(text: bytes) -> bytes:
    length = bytes([len(text) & 127 | 128, len(text) >> 7]) if len(text) > 127 else bytes([len(text)])
    return sealed(b"\x14\x01", b"\x7f\x7fabcd" + length + text)


def test_texts_are_bounded_and_whole() -> None:
    assert unpack(with_caption(deflated(b"x" * 65536)))[0].caption == "x" * 65536
    with pytest.raises(StreamError, match="at most 65536 bytes"):
        unpack(with_caption(deflated(b"x" * 65537)))
    with pytest.raises(StreamError, match="not one deflated string of at most 65536 bytes"):
        unpack(with_caption(deflated(b"x" * 10_000_000)))
    for content in (deflated(b"a boat")[:-1], deflated(b"a boat") + b"!"):
        with pytest.raises(StreamError, match="not one deflated string"):
            unpack(with_caption(content))
    with pytest.raises(StreamError, match="utf-8"):
        unpack(with_caption(deflated(b"\xff\xfe")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"height": 0}, "height must lie in 1..65535, got 0"),
        ({"width": 65536}, "width must lie in 1..65535, got 65536"),
        ({"height": 65535, "width": 4097}, "height times width must be at most 268435456, got 65535 x 4097"),
        ({"fingerprint": b"abc"}, "fingerprint must have 4 bytes, got 3"),
        ({"recipe": 256}, "recipe must lie in 0..255, got 256"),
        ({"recipe": 0}, "spec must be given if and only if recipe is 0"),
        ({"spec": "{}"}, "spec must be given if and only if recipe is 0"),
        ({"seed": 1 << 64}, "seed must lie in"),
        ({"seed": -1}, "seed must lie in"),
        ({"parameter": 0.05}, "parameter must be exact in bfloat16, got 0.05"),
        ({"parameter": 1.001953125}, "parameter must be exact in bfloat16, got 1.001953125"),
        ({"parameter": 1e300}, "parameter must be exact in bfloat16"),
        ({"parameter": float("nan")}, "parameter must be exact in bfloat16, got nan"),
        ({"parameter": float("inf")}, "parameter must be positive and finite"),
        ({"parameter": -1.0}, "parameter must be positive and finite"),
        ({"arithmetic": "x" * 201}, "arithmetic must be at most 200 characters of printable ASCII, got 'xxx"),
        ({"arithmetic": "\x1b[2J"}, "arithmetic must be at most 200 characters of printable ASCII"),
        ({"arithmetic": "tórch"}, "arithmetic must be at most 200 characters of printable ASCII"),
        ({"caption": "é" * 32769}, "caption must be at most 65536 bytes of UTF-8, got 65538"),
        ({"recipe": 0, "spec": "x" * 65537}, "spec must be at most 65536 bytes of UTF-8, got 65537"),
    ],
)
def test_header_refuses(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(SMALL, **change)
