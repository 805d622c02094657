"""Other codecs, at the settings that their own curves are best with, as far as their libraries' Python wrappers go."""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

Pixels = NDArray[np.uint8]
COLOURS = ("4:2:0", "4:4:4")
COMMENT, TILE = 0xFF64, 0xFF90  # markers of JPEG 2000: a comment, and what ends the main header


class FileFormat(ABC):
    """A codec whose file is all that its decoder is given."""

    settings: Sequence[str]
    """What :meth:`encode` takes, over about 0.05 to 1 bpp of a photograph, as far down as the codec goes."""

    tuning: str
    """How it is run, to stand beside its figures: library, speed, tuning, colour."""

    @abstractmethod
    def implementation(self) -> str | None:
        """Name and version of what encodes, or none where it is not installed."""

    @abstractmethod
    def encode(self, pixels: Pixels, setting: str) -> bytes:
        """The file of an image ``(height, width, 3)``."""

    @abstractmethod
    def decode(self, data: bytes) -> Pixels:
        """The image of a file."""

    def payload(self, data: bytes) -> int | None:
        """Bytes of a file without its container, or none where that says nothing."""
        return None


class PillowFormat(FileFormat):
    """One of Pillow's own codecs.

    Args:
        name: of the format, as Pillow has it.
        tuning: how it is run.
        feature: of the library, as Pillow has it.
        options: of ``Image.save`` that all settings share.
        qualities: each one is a setting.
        subsamplings: of the colour; with any, each combination with a quality is a setting.
    """

    def __init__(
        self,
        name: str,
        tuning: str,
        feature: str,
        options: dict[str, object],
        qualities: Sequence[int],
        subsamplings: Sequence[str] = (),
    ) -> None:
        self.name, self.tuning, self.feature, self.options = name, tuning, feature, options
        self.settings = [f"quality {quality}" for quality in qualities]
        if subsamplings:
            self.settings = [f"{setting} {ratio}" for setting in self.settings for ratio in subsamplings]

    def implementation(self) -> str | None:
        return f"{self.feature} {features.version(self.feature)}" if features.check(self.feature) else None

    def encode(self, pixels: Pixels, setting: str) -> bytes:
        _, quality, *ratio = setting.split()
        own = {"quality": int(quality), **({"subsampling": ratio[0]} if ratio else {})}
        return _saved(pixels, self.name, {**self.options, **own})

    def decode(self, data: bytes) -> Pixels:
        return _opened(data)


class JPEG2000(FileFormat):
    """JPEG 2000 through Pillow: a bare codestream of the irreversible transform, without its comment."""

    settings = tuple(f"{rate} bpp" for rate in (0.04, 0.06, 0.1, 0.14, 0.2, 0.3, 0.42, 0.6, 0.8, 1.1))
    tuning = "Pillow (OpenJPEG), irreversible, a bare codestream without its comment"

    def implementation(self) -> str | None:
        return f"openjpeg {features.version('jpg_2000')}" if features.check("jpg_2000") else None

    def encode(self, pixels: Pixels, setting: str) -> bytes:
        options = {"no_jp2": True, "irreversible": True, "mct": 1, "quality_mode": "rates"}
        ratio = 24 / float(setting.split()[0])
        return without_comment(_saved(pixels, "JPEG2000", {**options, "quality_layers": [ratio]}))

    def decode(self, data: bytes) -> Pixels:
        return _opened(data)


class AVIF(FileFormat):
    """AVIF through Pillow, encoder aom.

    Args:
        tuning: how it is run.
        options: of ``Image.save``.
        qualities: each one, with each of ``ratios``, is a setting.
        ratios: subsamplings of the colour.
        speed: from 0, the slowest, to 10.
    """

    def __init__(
        self, tuning: str, options: dict[str, object], qualities: Sequence[int], ratios: Sequence[str], speed: int
    ) -> None:
        self.tuning, self.options, self.speed = tuning, options, speed
        self.settings = [f"quality {quality} {ratio} speed {speed}" for quality in qualities for ratio in ratios]

    def implementation(self) -> str | None:
        return f"avif {features.version('avif')}" if features.check("avif") else None

    def encode(self, pixels: Pixels, setting: str) -> bytes:
        _, quality, ratio, _, speed = setting.split()
        own = {"quality": int(quality), "subsampling": ratio, "speed": int(speed), "codec": "aom"}
        return _saved(pixels, "AVIF", {**own, **self.options})

    def decode(self, data: bytes) -> Pixels:
        return _opened(data)

    def payload(self, data: bytes) -> int:
        return media_bytes(data)


class JPEGXL(FileFormat):
    """JPEG XL through imagecodecs: a bare codestream, efforts 7 and 9."""

    settings = tuple(
        f"distance {distance} effort {effort}"
        for distance in (0.8, 1.5, 2.5, 4, 6, 8, 10, 12, 15, 20, 25)
        for effort in (7, 9)
    )
    tuning = "imagecodecs (libjxl), a bare codestream, efforts 7 and 9"

    def implementation(self) -> str | None:
        return f"imagecodecs {version('imagecodecs')}" if find_spec("imagecodecs") else None

    def encode(self, pixels: Pixels, setting: str) -> bytes:
        from imagecodecs import jpegxl_encode

        _, distance, _, effort = setting.split()
        quality = float(distance)
        return bytes(jpegxl_encode(pixels, distance=quality, effort=int(effort), usecontainer=False, numthreads=1))

    def decode(self, data: bytes) -> Pixels:
        from imagecodecs import jpegxl_decode

        return np.ascontiguousarray(jpegxl_decode(data))


FORMATS: dict[str, FileFormat] = {
    "jpeg": PillowFormat(
        "JPEG",
        "Pillow (libjpeg-turbo), optimize, 4:2:0 and 4:4:4",
        "jpg",
        {"optimize": True},
        (2, 5, 10, 15, 20, 35, 50, 65, 80),
        COLOURS,
    ),
    "jp2": JPEG2000(),
    "webp": PillowFormat(
        "WEBP",
        "Pillow (libwebp), lossy, method 6, 4:2:0 (it has no other)",
        "webp",
        {"method": 6},
        (0, 5, 12, 22, 35, 50, 65, 80, 90),
    ),
    "avif": AVIF(
        "Pillow (libavif, aom), speed 4, tuned to PSNR, 4:2:0 and 4:4:4",
        {"advanced": {"tune": "psnr"}},
        (0, 3, 8, 15, 23, 32, 42, 53, 66, 80),
        COLOURS,
        speed=4,
    ),
    "avif-looks": AVIF(
        "Pillow (libavif, aom), speed 4, its default tuning, which is for looks, 4:2:0",
        {},
        (0, 5, 12, 20, 30, 42, 55, 68, 80),
        COLOURS[:1],
        speed=4,
    ),
    "jxl": JPEGXL(),
}
"""By the names that the command line takes."""


def without_comment(codestream: bytes) -> bytes:
    """A JPEG 2000 codestream without the comments of its main header (ISO/IEC 15444-1, A.9.2)."""
    kept, at = codestream[:2], 2
    while (marker := struct.unpack_from(">H", codestream, at)[0]) != TILE:
        end = at + 2 + struct.unpack_from(">H", codestream, at + 2)[0]
        kept += b"" if marker == COMMENT else codestream[at:end]
        at = end
    return kept + codestream[at:]


def media_bytes(data: bytes) -> int:
    """Bytes in the boxes ``mdat`` of an ISO base media file (ISO/IEC 14496-12, 4.2), their headers not counted."""
    total, at = 0, 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        end = at + size if size else len(data)
        total += end - at - header if kind == b"mdat" else 0
        at = end
    return total


def _saved(pixels: Pixels, name: str, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, **options)
    return file.getvalue()


def _opened(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))
