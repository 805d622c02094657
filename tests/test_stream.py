from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from reference_decoder import crc16
from sealing import sealed_stream as sealed

from pscx.errors import StreamError
from pscx.format.container import HEADER_CHECK, MAGIC, STREAM_CHECK, Header, is_whole, pack, unpack

SMALL = Header(128, 128, b"\x01\x02\x03\x04\x05\x06", recipe=1, parameter=0.5)


def random_header(source: random.Random) -> Header:
    height = source.choice([1, 128, 129, 16384, 65535, source.randint(1, 65535)])
    width = source.choice([1, source.randint(1, min(65535, (1 << 28) // height))])
    recipe = source.choice([0, 1, 255])
    texts = ["", "a boat", "čaj 茶 🙂", "x" * 65536, "".join(chr(source.randint(1, 0xD7FF)) for _ in range(300))]
    parameters = [None, 0.5, 2.0**-133, 3.3895313892515355e38, struct.unpack(">f", b"\x3d\x4d\0\0")[0]]
    return Header(
        height,
        width,
        source.randbytes(6),
        recipe,
        spec=source.choice(texts[1:]) if recipe == 0 else "",
        digest=source.randbytes(6) if recipe == 255 else b"",
        parameter=source.choice(parameters),
        seed=source.choice([0, 1, 127, 128, (1 << 64) - 1, source.getrandbits(64)]),
        caption=source.choice(texts),
        arithmetic=source.choice(["", "torch 2.13.0, cpu AVX2", "~" * 200, "#00ff", "#00fff"]),
    )


def refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        unpack(data)


def test_bytes_of_a_header() -> None:
    stream = pack(SMALL, b"payload")
    assert stream == bytes.fromhex("b75058 21 01 6f15 f658 7f 7f 010203040506 3f00") + b"payload"
    assert len(stream) - len(b"payload") == 19


def test_bytes_of_all_fields() -> None:
    header = Header(1, 300, b"abcdef", recipe=0, spec="{}", parameter=1.0, seed=300, caption="hi", arithmetic="cpu")
    stream = pack(header, b"!")
    deflated = [zlib.compress(text.encode(), 9)[2:-4] for text in ("hi", "cpu", "{}")]
    texts = b"".join(bytes([len(text)]) + text for text in deflated)
    assert stream[:5] == MAGIC + b"\x2f\x00"
    assert stream[HEADER_CHECK] == crc16(stream[:5] + stream[9:-1]).to_bytes(2, "big")
    assert stream[STREAM_CHECK] == crc16(stream[:7] + stream[9:]).to_bytes(2, "big")
    assert stream[9:] == b"\x00\xab\x02abcdef\x3f\x80\xac\x02" + texts + b"!"


def test_bytes_of_a_user_recipe() -> None:
    header = replace(SMALL, height=4096, width=4096, recipe=255, digest=b"digest")
    stream = pack(header, b"payload")
    assert stream[:5] == MAGIC + b"\x21\xff"
    assert stream[9:] == b"\xff\x1f\xff\x1f\x01\x02\x03\x04\x05\x06\x3f\x00digestpayload"
    assert len(stream) - len(b"payload") == 27


def test_bytes_of_a_digest_for_an_arithmetic() -> None:
    """A floating-point user recipe on an image of up to 4096x4096 pixels has a header of 30 bytes."""
    header = replace(SMALL, height=4096, width=4096, recipe=255, digest=b"digest", arithmetic="#b1fe")
    stream = pack(header, b"payload")
    assert stream[9:] == b"\xff\x1f\xff\x1f\x01\x02\x03\x04\x05\x06\x3f\x00\x00\xb1\xfedigestpayload"
    assert len(stream) - len(b"payload") == 30
    assert unpack(stream) == (header, b"payload")


def test_a_digest_in_words_is_refused() -> None:
    """Else two streams would have one header."""
    words = zlib.compress(b"#b1fe", 9)[2:-4]
    fields = b"\x7f\x7f\x01\x02\x03\x04\x05\x06\x3f\x00" + bytes([len(words)]) + words
    with pytest.raises(StreamError, match="an arithmetic in words is '#b1fe', which is a digest"):
        unpack(sealed(b"\x29\x01", fields))


def test_round_trip() -> None:
    source = random.Random(0)
    for _ in range(300):
        header, payload = random_header(source), source.randbytes(source.randint(0, 50))
        assert unpack(pack(header, payload)) == (header, payload)


def test_every_flipped_byte_and_every_truncation_is_refused() -> None:
    source = random.Random(1)
    header = replace(SMALL, recipe=0, spec='{"coder": "raw"}', seed=77, caption="a boat")
    own = replace(header, recipe=255, spec="", digest=b"digest")
    for stream in (pack(SMALL, b"payload"), pack(header, source.randbytes(30)), pack(own, source.randbytes(30))):
        for place in range(len(stream)):
            for flip in (1, 0x80, 0xFF, source.randint(1, 255)):
                refused(stream[:place] + bytes([stream[place] ^ flip]) + stream[place + 1 :])
            refused(stream[:place])
        refused(stream + b"\0")


def test_a_header_whose_check_fails_is_never_used() -> None:
    """Of a stream that may be cut or damaged: each flipped bit of the header is refused, each of the rest is known."""
    codecs: list[dict[str, Any]] = [{"recipe": 0, "spec": '{"coder": "raw"}'}, {"recipe": 255, "digest": b"digest"}]
    for codec in codecs:
        check_that_a_damaged_header_is_not_used(pack(replace(SMALL, **codec, seed=77, caption="a boat"), b"payload"))


def check_that_a_damaged_header_is_not_used(stream: bytes) -> None:
    for place in range(len(stream)):
        for bit in range(8):
            damaged = stream[:place] + bytes([stream[place] ^ 1 << bit]) + stream[place + 1 :]
            assert not is_whole(damaged)
            if place < len(stream) - len(b"payload") and place not in (7, 8):
                with pytest.raises(StreamError):
                    unpack(damaged, partial=True)
            else:
                assert unpack(damaged, partial=True)[0] == unpack(stream)[0]
    with pytest.raises(StreamError, match=r"^boat\.pscx has a damaged header: its checksum does not match$"):
        unpack(stream[:9] + b"\x7e" + stream[10:], "boat.pscx", partial=True)


def test_a_header_is_checked_where_the_payload_is_cut() -> None:
    stream = pack(SMALL, b"payload")
    assert unpack(stream[:-3], partial=True) == (SMALL, b"payl")
    with pytest.raises(StreamError, match="damaged header"):
        unpack(stream[:9] + b"\x7e" + stream[10:-3], partial=True)


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
            data = sealed(bytes([32 + source.randrange(16), source.choice([0, 1, 255])]), source.randbytes(40))
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
    with pytest.raises(StreamError, match=r"^boat\.pscx has version 1 .* reads version 2$"):
        unpack(MAGIC + b"\x10" + bytes(30), "boat.pscx")
    with pytest.raises(StreamError, match=r"^boat\.pscx is damaged or cut short"):
        unpack(pack(SMALL, b"payload")[:-1], "boat.pscx")
    with pytest.raises(StreamError, match="cut short: 8 bytes"):
        unpack(pack(SMALL, b"payload")[:8])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b"\x28\x01", b"\x7f\x7fabcdef", "a field of 1 bytes is cut short"),
        (b"\x28\x01", b"\x7f\x7fabcdef\x02\x03\x00", "flagged but empty"),
        (
            b"\x28\x01",
            b"\x7f\x7fabcdef\x05" + zlib.compress(b"a\x1b[")[2:-4],
            "arithmetic must be at most 200 characters",
        ),
        (b"\x20\x01", b"\xff\x00\x7fabcdef", "shortest form"),
        (b"\x20\x01", b"\xff\x80\x00\x7fabcdef", "shortest form"),
        (b"\x22\x01", b"\x7f\x7fabcdef" + b"\xff" * 9 + b"\x02", "below 2\\^64"),
        (b"\x22\x01", b"\x7f\x7fabcdef" + b"\xff" * 11, "below 2\\^64"),
        (b"\x22\x01", b"\x7f\x7fabcdef\x00", "seed is flagged but zero"),
        (b"\x21\x01", b"\x7f\x7fabcdef\x7f\x80", "positive and finite, got inf"),
        (b"\x21\x01", b"\x7f\x7fabcdef\x7f\xc0", "positive and finite, got nan"),
        (b"\x21\x01", b"\x7f\x7fabcdef\xbf\x80", "positive and finite, got -1"),
        (b"\x21\x01", b"\x7f\x7fabcdef\x00\x00", "positive and finite, got 0"),
        (b"\x20\x01", b"\xff\xff\x03\x7fabcdef", "height must lie in 1..65535, got 65536"),
        (b"\x20\x01", b"\x7f\xff\xff\x03abcdef", "width must lie in 1..65535, got 65536"),
        (b"\x20\x01", b"\xfe\xff\x03\xfe\xff\x03abcdef", "height times width"),
        (b"\x20\x01", b"\x7f\x7fabcde", "a field of 6 bytes is cut short"),
        (b"\x24\x01", b"\x7f\x7fabcdef\x0aboat", "a field of 10 bytes is cut short"),
        (b"\x20\xff", b"\x7f\x7fabcdefdiges", "a field of 6 bytes is cut short"),
        (b"\x24\x01", b"\x7f\x7fabcdef\x02\x03\x00", "flagged but empty"),
        (b"\x24\x01", b"\x7f\x7fabcdef\x01\x07", "invalid block type"),
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
    return sealed(b"\x24\x01", b"\x7f\x7fabcdef" + length + text)


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
        ({"fingerprint": b"abc"}, "fingerprint must have 6 bytes, got 3"),
        ({"recipe": 256}, "recipe must lie in 0..255, got 256"),
        ({"recipe": 0}, "spec must be given if and only if recipe is 0"),
        ({"spec": "{}"}, "spec must be given if and only if recipe is 0"),
        ({"recipe": 255}, "digest must have 6 bytes if and only if recipe is 255, got 0 and recipe 255"),
        ({"recipe": 255, "digest": b"abcde"}, "digest must have 6 bytes if and only if recipe is 255, got 5"),
        ({"digest": b"abcdef"}, "digest must have 6 bytes if and only if recipe is 255, got 6 and recipe 1"),
        ({"recipe": 255, "digest": b"abcdef", "spec": "{}"}, "spec must be given if and only if recipe is 0"),
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
def test_header_refuses(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(SMALL, **change)
