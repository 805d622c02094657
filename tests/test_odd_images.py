"""Files as strangers have them: read as a colour-managed viewer shows them, or refused in one sentence.

What is expected is worked out here, from the standards' numbers, and never by the code under test.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from tiny import write_codec

from pscx import ImageError, read_image, write_image
from pscx.cli.main import main
from pscx.data.folder import BUNDLED
from pscx.images import as_pixels
from pscx.runtime.notices import forget

Pixels = NDArray[np.uint8]
SRGB = [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)]
DISPLAY_P3 = [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)]
ADOBE = [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)]
BT2020 = [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)]
D65 = (0.3127, 0.3290)
D50 = np.array([0.9642, 1.0, 0.8249])
RED = (198, 62, 45)  # what (183, 72, 54) in Display P3 is


@pytest.fixture(autouse=True)
def told_anew() -> Iterator[None]:
    forget()
    yield
    forget()


# The oracle: matrices and curves of the standards


def xyz(primaries: list[tuple[float, float]], white: tuple[float, float] = D65) -> NDArray[np.float64]:
    """Columns: red, green and blue in XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    matrix: NDArray[np.float64] = columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])
    return matrix


def srgb_linear(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def srgb_levels(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def shown(
    pixels: Pixels,
    primaries: list[tuple[float, float]],
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]] = srgb_linear,
) -> NDArray[np.float64]:
    """Levels of sRGB for pixels of a space under D65."""
    linear = curve(pixels / 255) @ (np.linalg.inv(xyz(SRGB)) @ xyz(primaries)).T
    return srgb_levels(linear)


def power(gamma: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda levels: levels**gamma


def profile(kind: bytes, primaries: list[tuple[float, float]] | None, gamma: float | None) -> bytes:
    """An ICC profile (version 2) of a monitor or of greys, by hand: without ``gamma`` it has the curve of sRGB."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def colour(vector: NDArray[np.float64]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(number(value) for value in vector)

    if gamma is None:
        table = np.rint(65535 * srgb_linear(np.arange(1024) / 1023)).astype(">u2")
        curve = struct.pack(">4s4xI", b"curv", len(table)) + table.tobytes()
    else:
        curve = struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), b"cprt": b"text\0\0\0\0free\0"}
    tags[b"wtpt"] = colour(D50)
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        white = xyz(primaries).sum(1)
        to_d50 = np.linalg.inv(bradford) @ np.diag(bradford @ D50 / (bradford @ white)) @ bradford
        matrix = to_d50 @ xyz(primaries)
        for place, (one, other) in enumerate([(b"rXYZ", b"rTRC"), (b"gXYZ", b"gTRC"), (b"bXYZ", b"bTRC")]):
            tags[one], tags[other] = colour(matrix[:, place]), curve
    entries, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        entries += struct.pack(">4sII", name, start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    body = struct.pack(">I", len(tags)) + entries + content
    header = struct.pack(
        ">I4sI4s4s4s12s4s4s", 128 + len(body), b"", 0x02100000, b"mntr", kind, b"XYZ ", bytes(12), b"acsp", b""
    )
    header = header.ljust(68, b"\0") + b"".join(number(value) for value in D50)
    return header.ljust(128, b"\0") + body


def flat(*levels: int) -> Pixels:
    """16x16 pixels of one colour."""
    return np.full((16, 16, len(levels)), levels, np.uint8)


def patches() -> Pixels:
    """Colours that no conversion here takes out of sRGB: greys, and soft colours all around."""
    rng = np.random.default_rng(7)
    soft = rng.integers(70, 190, (12, 16, 1)) + rng.integers(-30, 31, (12, 16, 3))
    greys = np.linspace(0, 255, 64).round().reshape(4, 16, 1).repeat(3, 2)
    return np.concatenate([greys, soft]).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: NDArray[Any], colour: int, *chunks: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """A PNG by hand, ``pixels`` ``(height, width, channels)``, with chunks before its data."""
    height, width = pixels.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    elif depth == 8:
        rows = [row.astype(np.uint8).tobytes() for row in pixels]
    else:
        each = pixels[:, :, 0, None] >> np.arange(depth - 1, -1, -1) & 1
        rows = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in each]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    extra = b"".join(chunk(*one) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(folder: Path, data: bytes, **options: str) -> Pixels:
    (folder / "odd").write_bytes(data)
    return read_image(folder / "odd", **options)


def close(pixels: Pixels, expected: NDArray[np.generic], levels: float = 1.5) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected.astype(float)).max() <= levels


# Profiles

P3 = profile(b"RGB ", DISPLAY_P3, None)


def test_the_oracle_knows_a_published_colour() -> None:
    """Red of sRGB is (234, 51, 35) in Display P3, rounded: there, a level more or less moves others by some."""
    assert np.abs(shown(flat(234, 51, 35), DISPLAY_P3)[0, 0] - (255, 0, 0)).max() < 4
    assert np.abs(shown(flat(183, 72, 54), DISPLAY_P3)[0, 0] - RED).max() < 0.6


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
@pytest.mark.parametrize("pixels", [flat(183, 72, 54), patches()], ids=["red", "patches"])
def test_display_p3(tmp_path: Path, pixels: Pixels, kind: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(pixels), kind, icc_profile=P3, **options)
    close(read(tmp_path, data), shown(pixels, DISPLAY_P3))


def test_display_p3_in_a_jpeg(tmp_path: Path) -> None:
    data = saved(Image.fromarray(flat(183, 72, 54)), "JPEG", quality=100, subsampling=0, icc_profile=P3)
    close(read(tmp_path, data), flat(*RED), 3)


def test_adobe_rgb(tmp_path: Path) -> None:
    data = saved(Image.fromarray(patches()), "PNG", icc_profile=profile(b"RGB ", ADOBE, 563 / 256))
    close(read(tmp_path, data), shown(patches(), ADOBE, power(563 / 256)))


def test_adobe_rgb_as_cameras_say_it(tmp_path: Path) -> None:
    first = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0)
    second = struct.pack("<HHHIIHHIII", 2, 0xA001, 3, 1, 0xFFFF, 0xA005, 4, 1, 56, 0)
    exif = b"Exif\0\0" + first + second + struct.pack("<HHHI4sI", 1, 1, 2, 4, b"R03\0", 0)
    data = saved(Image.fromarray(flat(150, 100, 80)), "JPEG", quality=100, subsampling=0, exif=exif)
    close(read(tmp_path, data), shown(flat(150, 100, 80), ADOBE, power(563 / 256)), 4)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_profile_of_greys(tmp_path: Path, mode: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = {
        "L": Image.fromarray(grey),
        "LA": Image.merge("LA", [Image.fromarray(grey), Image.new("L", (16, 16), 255)]),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
    }[mode]
    pixels = read(tmp_path, saved(image, "PNG", icc_profile=profile(b"GRAY", None, 1.8)))
    close(pixels[4:], srgb_levels((grey / 255) ** 1.8)[:, :, None].repeat(3, 2)[4:])


def test_a_palette_with_a_profile(tmp_path: Path) -> None:
    image = Image.fromarray(np.indices((16, 16)).sum(0).astype(np.uint8) % 2)
    image.putpalette([183, 72, 54, 128, 128, 128])
    pixels = read(tmp_path, saved(image, "PNG", icc_profile=P3))
    close(pixels[0, :2], np.array([RED, [128, 128, 128]]))


def test_greys_with_a_profile_of_colours(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = saved(Image.fromarray(grey), "JPEG", quality=100, icc_profile=profile(b"RGB ", SRGB, 1.8))
    close(read(tmp_path, data)[4:], srgb_levels((grey / 255) ** 1.8)[:, :, None].repeat(3, 2)[4:], 4)


SRGB_PROFILES = {
    "its own": lambda: ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "a table": lambda: profile(b"RGB ", SRGB, None),
}


@pytest.mark.parametrize("make", SRGB_PROFILES.values(), ids=SRGB_PROFILES)
def test_srgb_changes_no_bit(tmp_path: Path, astronaut: Pixels, make: Callable[[], bytes]) -> None:
    data = saved(Image.fromarray(astronaut), "PNG", icc_profile=make())
    np.testing.assert_array_equal(read(tmp_path, data), astronaut)


def test_srgb_of_the_usual_profile_changes_no_bit(tmp_path: Path) -> None:
    """That of the bundled photographs would move some colours by a level."""
    with Image.open(BUNDLED / "astronaut.png") as image:
        usual = image.info["icc_profile"]
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, 289, 3)
    data = saved(Image.fromarray(colours), "PNG", icc_profile=usual)
    np.testing.assert_array_equal(read(tmp_path, data), colours)


def test_white_stays_white_under_another_white_point(tmp_path: Path) -> None:
    chromaticities = numbers(0.3457, 0.3585, *(value for pair in DISPLAY_P3 for value in pair))
    pixels = read(tmp_path, png(patches(), 2, (b"cHRM", chromaticities)))
    close(pixels[:4], patches()[:4])
    assert np.abs(pixels[4:].astype(int) - patches()[4:]).max() > 3


def cmyk_profile() -> bytes:
    """There is none to be had without a press: one whose table holds what ``1 - ink`` would give, as CIE Lab."""
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 4, indexing="ij"), -1).reshape(-1, 4)
    rgb = (1 - inks[:, :3]) * (1 - inks[:, 3:])
    mixed = np.rint(255 * rgb).astype(np.uint8)[None]
    lab = ImageCms.profileToProfile(
        Image.fromarray(mixed), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    table = np.frombuffer(lab.tobytes(), np.uint8).reshape(-1, 3).astype(int)
    table[:, 1:] = (table[:, 1:] + 128) % 256 if table[-1, 1] < 64 else table[:, 1:]
    identity = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3) for column in range(3))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 5, 0]) + identity + ramp * 4 + table.astype(np.uint8).tobytes() + ramp * 3
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), b"A2B0": lut, b"A2B1": lut}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    entries, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        entries += struct.pack(">4sII", name, start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    body = struct.pack(">I", len(tags)) + entries + content
    kind = (b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    header = struct.pack(">I4sI4s4s4s12s4s", 128 + len(body), b"", 0x02100000, *kind)
    header = header.ljust(68, b"\0") + b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    return header.ljust(128, b"\0") + body


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, kind: str, tagged: bool) -> None:
    """Without a profile as ``(1 - ink) (1 - black)``, and with one that says nearly the same as that says."""
    inks = np.array([[0, 0, 0, 0], [0, 128, 255, 0], [64, 64, 64, 64], [0, 0, 0, 255]], np.uint8)
    image = Image.frombytes("CMYK", (16, 16), inks.repeat(64, 0).tobytes())
    options: dict[str, object] = {"quality": 100} if kind == "JPEG" else {}
    data = saved(image, kind, **options, **({"icc_profile": cmyk_profile()} if tagged else {}))
    ink = inks / 255
    expected = 255 * (1 - ink[:, :3]) * (1 - ink[:, 3:])
    close(read(tmp_path, data)[1::4, 0], expected, 12 if tagged else 4)


def test_cmyk_with_a_profile_of_other_inks(tmp_path: Path) -> None:
    """The profile is what decides: with cyan and yellow exchanged in it, the colours are exchanged."""
    image = Image.new("CMYK", (16, 16), (0, 128, 255, 0))
    one, other = (read(tmp_path, saved(image, "TIFF", icc_profile=data)) for data in (cmyk_profile(), b"none"))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("damaged", [b"no profile", P3[:200], profile(b"GRAY", None, 2.2), P3[:128] + bytes(400)])
def test_a_profile_of_no_use_is_told(tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture) -> None:
    data = saved(Image.fromarray(patches()), "WEBP", lossless=True, icc_profile=damaged)
    np.testing.assert_array_equal(read(tmp_path, data), patches())
    read(tmp_path, data)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "odd' has a colour profile that is damaged or not for such a picture" in caplog.text


# PNG's own colours


def numbers(*values: float) -> bytes:
    return struct.pack(f">{len(values)}I", *(round(100000 * value) for value in values))


CHROMATICITIES = numbers(*D65, *(value for pair in DISPLAY_P3 for value in pair))
ICCP = b"x\0\0" + zlib.compress(P3)
ROWS: dict[str, tuple[list[tuple[bytes, bytes]], NDArray[np.generic]]] = {
    "gamma": ([(b"gAMA", numbers(1 / 1.8))], shown(patches(), SRGB, power(1.8))),
    "the usual gamma": ([(b"gAMA", numbers(0.45455))], patches()),
    "linear": ([(b"gAMA", numbers(1))], shown(patches(), SRGB, power(1))),
    "chromaticities": ([(b"cHRM", CHROMATICITIES)], shown(patches(), DISPLAY_P3)),
    "both": ([(b"gAMA", numbers(1 / 1.8)), (b"cHRM", CHROMATICITIES)], shown(patches(), DISPLAY_P3, power(1.8))),
    "sRGB before gamma": ([(b"gAMA", numbers(1)), (b"sRGB", b"\0")], patches()),
    "a profile before gamma": ([(b"gAMA", numbers(1)), (b"iCCP", ICCP)], shown(patches(), DISPLAY_P3)),
    "cICP P3": ([(b"cICP", bytes([12, 13, 0, 1]))], shown(patches(), DISPLAY_P3)),
    "cICP before a profile": ([(b"cICP", bytes([1, 13, 0, 1])), (b"iCCP", ICCP)], patches()),
    "cICP BT.2020, linear": ([(b"cICP", bytes([9, 8, 0, 1]))], shown(patches(), BT2020, power(1))),
}


@pytest.mark.parametrize(("chunks", "expected"), ROWS.values(), ids=ROWS)
def test_colours_of_a_png(tmp_path: Path, chunks: list[tuple[bytes, bytes]], expected: NDArray[np.generic]) -> None:
    pixels = read(tmp_path, png(patches(), 2, *chunks))
    if expected.dtype == np.uint8:
        np.testing.assert_array_equal(pixels, expected)
    else:
        close(pixels, expected)


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        (b"cICP", bytes([9, 16, 0, 1]), r"colour space \(cICP \(9, 16, 0, 1\)\) that is not followed"),
        (b"cICP", bytes([1, 13, 0, 0]), r"colour space \(cICP \(1, 13, 0, 0\)\) that is not followed"),
        (b"cICP", b"", r"has a damaged colour space \(cICP\), which is ignored"),
        (b"gAMA", numbers(0), "gamma or chromaticities that make no sense"),
        (b"gAMA", b"\0", "has a damaged gamma, which is ignored"),
        (b"cHRM", bytes(32), "gamma or chromaticities that make no sense"),
        (b"iCCP", b"x\0\0broken", "has a damaged colour profile, which is ignored"),
    ],
)
def test_what_is_not_followed_is_told(
    tmp_path: Path, kind: bytes, data: bytes, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    np.testing.assert_array_equal(read(tmp_path, png(patches(), 2, (kind, data))), patches())
    assert len(caplog.records) == 1
    assert re.search(sentence, caplog.text)


# Transparency


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_a_transparent_grey(tmp_path: Path, depth: int) -> None:
    top = (1 << depth) - 1
    key = 0 if depth == 1 else 77 * 256 + 5 if depth == 16 else 77
    other = top if depth == 1 else key + 1
    grey = np.full((16, 16, 1), other)
    grey[:, :8] = key
    pixels = read(tmp_path, png(grey, 0, (b"tRNS", struct.pack(">H", key)), depth=depth), background="#010203")
    np.testing.assert_array_equal(pixels[:, :8], flat(1, 2, 3)[:, :8])
    assert (pixels[:, 8:] == (other >> 8 if depth == 16 else other * 255 // top)).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour(tmp_path: Path, depth: int) -> None:
    key = np.array([200, 100, 50]) * (257 if depth == 16 else 1)
    pixels = np.tile(key, (16, 16, 1))
    pixels[:, 8:, 2] += 1
    shape = read(tmp_path, png(pixels, 2, (b"tRNS", struct.pack(">3H", *key)), depth=depth))
    assert (shape[:, :8] == 255).all()
    assert (shape[:, 8:] == (pixels[0, 8] >> 8 if depth == 16 else pixels[0, 8])).all()


@pytest.mark.parametrize("alphas", [b"\xff\0", b"\xff\x80"])
def test_a_palette_with_alpha(tmp_path: Path, alphas: bytes) -> None:
    image = Image.fromarray(np.indices((16, 16)).sum(0).astype(np.uint8) % 2)
    image.putpalette([200, 0, 0, 0, 0, 200])
    pixels = read(tmp_path, saved(image, "PNG", transparency=alphas))
    close(pixels[0, :2], np.array([[200, 0, 0], [255 - alphas[1], 255 - alphas[1], 255 - 55 * alphas[1] / 255]]))


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.new("L", (16, 16), 100), Image.new("L", (16, 16), 51)])
    close(read(tmp_path, saved(image, "PNG")), flat(224, 224, 224))


def test_colours_are_converted_before_they_are_mixed(tmp_path: Path) -> None:
    image = Image.fromarray(np.concatenate([flat(183, 72, 54), flat(128)], 2))
    data = saved(image, "PNG", icc_profile=P3)
    close(read(tmp_path, data, background="black"), flat(99, 31, 22))


def test_transparency_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clear, opaque = (Image.new("RGBA", (16, 16), (10, 20, 30, alpha)) for alpha in (0, 255))
    read(tmp_path, saved(opaque, "PNG"))
    read(tmp_path, saved(clear, "PNG"), background="white")
    assert not caplog.records
    for _ in range(2):
        assert (read(tmp_path, saved(clear, "PNG")) == 255).all()
    assert "has transparent pixels: they are laid over white" in caplog.text
    assert len(caplog.records) == 1


def test_a_background_is_a_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="background must be a colour such as white or #8040ff, got 'blurple'"):
        read(tmp_path, saved(Image.new("L", (16, 16)), "PNG"), background="blurple")
    assert main(["compress", str(tmp_path / "odd"), "--background", "blurple"]) == 2
    assert capsys.readouterr().err == "pscx: background must be a colour such as white or #8040ff, got 'blurple'\n"


# Chunks of any size, and damage

LARGE = bytes(1 << 26)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"tEXt", b"Comment\0" + LARGE),
        (b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE)),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LARGE)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LARGE)),
        (b"iTXt", b"XML:com.adobe.xmp"),
        (b"zTXt", b"Raw profile type exif\0"),
        (b"vpAg", b"private"),
        (b"pHYs", b""),
    ],
)
def test_chunks_beside_the_picture_do_no_harm(tmp_path: Path, kind: bytes, data: bytes) -> None:
    np.testing.assert_array_equal(read(tmp_path, png(patches(), 2, (kind, data))), patches())


def test_a_large_profile_is_followed(tmp_path: Path) -> None:
    large = P3 + np.random.default_rng(0).bytes(3 << 20)  # behind what its table of tags names
    large = struct.pack(">I", len(large)) + large[4:]
    close(read(tmp_path, png(patches(), 2, (b"iCCP", b"x\0\0" + zlib.compress(large)))), shown(patches(), DISPLAY_P3))


def test_a_profile_that_unpacks_to_gigabytes_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = png(patches(), 2, (b"iCCP", b"x\0\0" + zlib.compress(LARGE)))
    np.testing.assert_array_equal(read(tmp_path, data), patches())
    assert "has a damaged colour profile, which is ignored" in caplog.text


@pytest.mark.parametrize("packed", [False, True])
def test_orientation_in_a_text_counts(tmp_path: Path, packed: bool) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="3"/></x:xmpmeta>'
    text = b"XML:com.adobe.xmp\0" + bytes([packed]) + b"\0\0\0" + (zlib.compress(xmp) if packed else xmp)
    np.testing.assert_array_equal(read(tmp_path, png(patches(), 2, (b"iTXt", text))), patches()[::-1, ::-1])


@pytest.mark.parametrize("where", [b"IDAT", b"IHDR", b"tEXt", b"IEND"])
def test_a_wrong_checksum_anywhere(tmp_path: Path, where: bytes) -> None:
    data = bytearray(png(patches(), 2, (b"tEXt", b"Comment\0x")))
    place = data.index(where)
    data[place + 4 + int.from_bytes(data[place - 4 : place], "big")] ^= 1
    with pytest.raises(ImageError, match=f"odd' is damaged .*: its chunk {where.decode()} has a wrong checksum"):
        read(tmp_path, bytes(data))


@pytest.mark.parametrize(("cut", "reason"), [(12, "it ends before its last chunk"), (20, "it ends inside a chunk")])
def test_a_png_that_ends_early(tmp_path: Path, cut: int, reason: str) -> None:
    with pytest.raises(ImageError, match=f"cannot be decoded: {reason}"):
        read(tmp_path, png(patches(), 2)[:-cut])


def test_a_needed_chunk_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="its chunk CgBI is of no known kind"):
        read(tmp_path, png(patches(), 2, (b"CgBI", b"")))


def scan_of(data: bytes) -> int:
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def jpeg(astronaut: Pixels, **options: object) -> bytes:
    return saved(Image.fromarray(astronaut), "JPEG", **{"quality": 75, **options})


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("size", [128, 17])
def test_a_whole_jpeg_tells_nothing(
    tmp_path: Path, astronaut: Pixels, options: dict[str, object], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = jpeg(astronaut[:size, :100], **options)
    np.testing.assert_array_equal(read(tmp_path, data), np.array(Image.open(io.BytesIO(data))))
    read(tmp_path, data + b"behind its end")
    assert not caplog.records


DAMAGE: dict[str, tuple[Callable[[bytes, int], bytes], str]] = {
    "a part lost": (lambda data, start: data[: start + 900] + data[start + 1000 :], "ends too early"),
    "a part twice": (lambda data, start: data[: start + 999] + data[start + 900 :], "bytes of its scan are left"),
    "cut and closed": (lambda data, start: data[: start + 1500] + b"\xff\xd9", "its scan ends too early"),
    "a marker inside": (lambda data, start: data[: start + 900] + b"\xff\xe5" + data[start + 902 :], "a marker inside"),
    "no end": (lambda data, start: data[:-2], "has no end"),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE.values(), ids=DAMAGE)
def test_a_jpeg_damaged_in_its_scan_is_told(
    tmp_path: Path,
    astronaut: Pixels,
    damage: Callable[[bytes, int], bytes],
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = jpeg(astronaut)
    assert read(tmp_path, damage(data, scan_of(data))).shape == astronaut.shape
    assert re.search(f"odd' is a damaged JPEG, .*{sentence}.*: what a viewer shows of it is used", caplog.text)
    assert len(caplog.records) == 1


def test_restart_markers_out_of_order_are_told(
    tmp_path: Path, astronaut: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    data = jpeg(astronaut, restart_marker_rows=1)
    read(tmp_path, data.replace(b"\xff\xd1", b"\xff\xd5"))
    assert "its restart markers are not in order" in caplog.text


# Cameras


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_every_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    """The corners of a photograph are where a viewer puts them: red above on the left, and so on."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    stored = ["01/23", "10/32", "32/10", "23/01", "02/13", "13/02", "31/20", "20/31"][orientation - 1]
    order = [[int(place) for place in row] for row in stored.split("/")]
    small = corners.reshape(4, 3)[np.array(order)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(small.repeat(16, 0).repeat(16, 1)), kind, exif=exif, **options)
    close(read(tmp_path, data)[8::16, 8::16], corners, 3)


def test_a_camera_file_with_previews_and_a_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, preview = Image.fromarray(np.tile(flat(183, 72, 54), (4, 4, 1))), Image.fromarray(flat(1, 2, 3))
    data = saved(image, "MPO", save_all=True, append_images=[preview], icc_profile=P3, quality=100)
    close(read(tmp_path, data), np.tile(flat(*RED), (4, 4, 1)), 3)
    assert not caplog.records


# Other kinds


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PNG"])
def test_plain_files(tmp_path: Path, kind: str, mode: str) -> None:
    image = Image.fromarray(patches()).convert(mode)
    np.testing.assert_array_equal(read(tmp_path, saved(image, kind)), np.array(image.convert("RGB")))


def test_sixteen_bits_of_a_tiff(tmp_path: Path) -> None:
    grey = (np.arange(256, dtype=np.uint16) * 256 + 200).reshape(16, 16)
    pixels = read(tmp_path, saved(Image.fromarray(grey), "TIFF"))
    np.testing.assert_array_equal(pixels, (grey >> 8)[:, :, None].repeat(3, 2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_pictures_in_one_file(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(flat(shade, 0, 0)) for shade in (10, 200)]
    says = "holds 2 pages" if kind == "TIFF" else "is animated"
    with pytest.raises(ImageError, match=f"odd' {says}: expected a single image"):
        read(tmp_path, saved(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_range(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ImageError, match=rf"odd' holds values of no fixed range \(mode {mode}\): save it with 8 bits"):
        read(tmp_path, saved(Image.new(mode, (16, 16)), "TIFF"))


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (15, 16)])
def test_pictures_that_are_too_narrow(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"odd' is {size[0]}x{size[1]} pixels: an image must be at least 16x16"):
        read(tmp_path, saved(Image.new("L", size), "PNG"))


def test_sixteen_pixels_wide_and_long(tmp_path: Path) -> None:
    assert read(tmp_path, saved(Image.new("L", (16, 5000)), "PNG")).shape == (5000, 16, 3)


# What is written, and pictures in memory


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_come_out_tagged(tmp_path: Path, astronaut: Pixels, suffix: str) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / (name + suffix), astronaut)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    with Image.open(tmp_path / f"a{suffix}") as image:
        if suffix == ".png":
            assert image.info["srgb"] == 0
        else:
            tag = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(tag)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), astronaut)


def test_a_pillow_image_is_converted_too() -> None:
    image = Image.open(io.BytesIO(saved(Image.fromarray(patches()), "PNG", icc_profile=P3)))
    close(as_pixels(image), shown(patches(), DISPLAY_P3))
    np.testing.assert_array_equal(as_pixels(Image.fromarray(patches())), patches())


# Through the commands


def test_odd_files_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, root = write_codec(tmp_path), tmp_path / "in"
    root.mkdir()
    (root / "p3.png").write_bytes(saved(Image.fromarray(flat(183, 72, 54)), "PNG", icc_profile=P3))
    (root / "cmyk.jpg").write_bytes(saved(Image.new("CMYK", (16, 16), (0, 128, 255, 0)), "JPEG", quality=100))
    (root / "deep.png").write_bytes(png(np.full((16, 16, 1), 40000), 0, depth=16))
    (root / "clear.png").write_bytes(saved(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG"))
    (root / "broken.png").write_bytes(png(patches(), 2)[:-20])
    fine = ["--model.codec.quantizer.step", "0.05", "--model.codec.iterations", "3"]
    assert main(["compress", str(root), "-o", str(tmp_path / "out"), "--config", config, *fine]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "broken.png' is damaged or cut short" in message
    assert main(["decompress", str(tmp_path / "out")]) == 0
    expected = {"p3": RED, "cmyk": (255, 127, 0), "deep": (156,) * 3, "clear": (255,) * 3}
    for name, colour in expected.items():
        found = list((tmp_path / "out").rglob(f"{name}.decoded.png"))
        assert np.abs(read_image(found[0]).mean((0, 1)) - colour).max() < 8
    test = ["test", "--config", config, "--data.root", str(root), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(test) == 2
    assert "broken.png' is damaged or cut short" in capsys.readouterr().err
    assert (tmp_path / "run" / "images.csv").read_text().count("\n") == 5


def oriented(orientation: int) -> bytes:
    """A camera's JPEG of one colour, 32 pixels wide and 16 high as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.new("RGB", (32, 16), RED), "JPEG", quality=95, exif=exif)


def thirty_files() -> dict[str, tuple[bytes, tuple[float, ...]]]:
    """Whole files of one colour of sRGB, by name, with that colour as a colour-managed viewer shows it."""
    p3, grey, two = Image.fromarray(flat(183, 72, 54)), Image.new("L", (16, 16), 100), Image.new("P", (16, 16), 1)
    two.putpalette([9, 9, 9, *RED])
    dark, white = tuple(srgb_levels(np.array([(100 / 255) ** 1.8] * 3))), (255.0,) * 3
    camera = {f"orientation-{number}.jpg": (oriented(number), RED) for number in range(1, 9)}
    tagged = {
        f"p3.{suffix}": (saved(p3, kind, icc_profile=P3), RED) for suffix, kind in (("png", "PNG"), ("tif", "TIFF"))
    }
    wide = flat(150, 100, 80)
    adobe = profile(b"RGB ", ADOBE, 563 / 256)
    return (
        camera
        | tagged
        | {
            "p3.jpg": (saved(p3, "JPEG", quality=100, icc_profile=P3), RED),
            "p3.webp": (saved(p3, "WEBP", lossless=True, icc_profile=P3), RED),
            "mpo.jpg": (saved(p3, "MPO", save_all=True, append_images=[p3], icc_profile=P3, quality=100), RED),
            "adobe.png": (
                saved(Image.fromarray(wide), "PNG", icc_profile=adobe),
                tuple(shown(wide, ADOBE, power(563 / 256))[0, 0]),
            ),
            "cmyk.jpg": (saved(Image.new("CMYK", (16, 16), (0, 128, 255, 0)), "JPEG", quality=100), (255, 127, 0)),
            "inks.tif": (
                saved(Image.new("CMYK", (16, 16), (0, 128, 255, 0)), "TIFF", icc_profile=cmyk_profile()),
                (255, 127, 0),
            ),
            "grey-profile.png": (saved(grey, "PNG", icc_profile=profile(b"GRAY", None, 1.8)), dark),
            "grey-of-colours.jpg": (saved(grey, "JPEG", quality=100, icc_profile=profile(b"RGB ", SRGB, 1.8)), dark),
            "gamma.png": (png(flat(100, 100, 100), 2, (b"gAMA", numbers(1 / 1.8))), dark),
            "cicp.png": (png(flat(183, 72, 54), 2, (b"cICP", bytes([12, 13, 0, 1]))), RED),
            "deep.png": (png(np.full((16, 16, 1), 40000), 0, depth=16), (156,) * 3),
            "deep-colour.png": (png(np.tile([40000, 20000, 10000], (16, 16, 1)), 2, depth=16), (156, 78, 39)),
            "deep.tif": (saved(Image.fromarray(np.full((16, 16), 40000, np.uint16)), "TIFF"), (156,) * 3),
            "bit.png": (png(np.ones((16, 16, 1), int), 0, depth=1), white),
            "bit.bmp": (saved(Image.new("1", (16, 16), 1), "BMP"), white),
            "palette.png": (saved(two, "PNG"), RED),
            "palette-alpha.png": (saved(two, "PNG", transparency=b"\0\0"), white),
            "grey-key.png": (png(np.full((16, 16, 1), 77), 0, (b"tRNS", struct.pack(">H", 77))), white),
            "colour-key.png": (png(flat(200, 100, 50), 2, (b"tRNS", struct.pack(">3H", 200, 100, 50))), white),
            "grey-alpha.png": (saved(Image.merge("LA", [grey, Image.new("L", (16, 16), 51)]), "PNG"), (224,) * 3),
            "clear.png": (saved(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG"), white),
            "text.png": (png(flat(*RED), 2, (b"tEXt", b"Comment\0" + b"x" * (3 << 20))), RED),
            "progressive.jpg": (saved(Image.new("RGB", (16, 16), RED), "JPEG", quality=95, progressive=True), RED),
            "long.png": (saved(Image.new("RGB", (16, 400), RED), "PNG"), RED),
        }
    )


def refused_files() -> dict[str, tuple[bytes, str]]:
    frames = [Image.fromarray(flat(shade, 0, 0)) for shade in (10, 200)]
    giant = png(flat(*RED), 2).replace(struct.pack(">II", 16, 16), struct.pack(">II", 60_000, 60_000), 1)
    crc = zlib.crc32(giant[12:29])
    return {
        "apng.png": (saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), "is animated"),
        "animated.webp": (saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "is animated"),
        "pages.tif": (saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "holds 2 pages"),
        "narrow.png": (saved(Image.new("L", (1, 40)), "PNG"), "an image must be at least 16x16"),
        "giant.png": (giant[:29] + struct.pack(">I", crc) + giant[33:], "pixels"),
        "cut.png": (png(patches(), 2)[:-20], "is damaged or cut short"),
    }


def test_thirty_odd_files_through_compress_decompress_and_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colours as a colour-managed viewer shows them, or one sentence for each file."""
    config, root = write_codec(tmp_path), tmp_path / "in"
    root.mkdir()
    whole, refused = thirty_files(), refused_files()
    assert len(whole) >= 30
    for name, (data, _) in (whole | refused).items():
        (root / name).write_bytes(data)
    fine = ["--model.codec.quantizer.step", "0.05", "--model.codec.iterations", "3"]
    assert main(["compress", str(root), "-o", str(tmp_path / "out"), "--config", config, *fine]) == 2
    says = [line for line in capsys.readouterr().err.splitlines() if "transparent pixels" not in line]
    assert len(says) == len(refused)
    for name, (_, part) in refused.items():
        assert [line for line in says if f"{name}'" in line and part in line], (name, says)
    assert main(["decompress", str(tmp_path / "out")]) == 0
    decoded = {path.name: read_image(path) for path in (tmp_path / "out").glob("*.decoded.png")}
    assert len(decoded) == len(whole)
    for name, (_, colour) in whole.items():
        own = Path(name).stem if f"{Path(name).stem}.decoded.png" in decoded else name
        found = decoded[f"{own}.decoded.png"]
        assert np.abs(found.mean((0, 1)) - colour).max() < 10, name
        if name.startswith("orientation"):
            assert found.shape[:2] == ((16, 32) if int(name[12]) < 5 else (32, 16))
    run = tmp_path / "run"
    test = ["test", "--config", config, "--data.root", str(root), "--trainer.default_root_dir", str(run), *fine]
    assert main(test) == 2
    assert (run / "images.csv").read_text().count("\n") == 1 + len(whole)
    assert (run / "left_out.csv").read_text().count("\n") == 1 + len(refused)


def test_a_new_process_tells_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(saved(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG"))
    code = f"import pscx; pscx.read_image({str(tmp_path / 'x.png')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence = "has transparent pixels: they are laid over white (compress --background COLOR)"
    assert done.stderr == f"pscx: '{tmp_path / 'x.png'}' {sentence}\n"
