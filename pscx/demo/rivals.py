"""JPEG and WebP versions of a photograph at the size of a stream of pscx."""

from __future__ import annotations

import io
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pscx.metrics import psnr
from pscx.rate_control.trials import Pixels

# What makes the smallest files of each, and the largest quality.
FORMATS: Mapping[str, tuple[dict[str, Any], int]] = {
    "JPEG": ({"optimize": True, "progressive": True}, 95),
    "WebP": ({"method": 6}, 100),
}


@dataclass(frozen=True)
class Rival:
    """A photograph coded by another codec: ``pixels`` are the decoded file, ``(height, width, 3)`` uint8.

    ``fits`` says whether the file is within the limit; if no quality is, the file has the lowest quality.
    """

    name: str
    quality: int
    bytes: int
    fits: bool
    pixels: Pixels
    psnr: float


def rival(name: str, pixels: Pixels, limit: int) -> Rival:
    """The largest file of at most ``limit`` bytes that one of :data:`FORMATS` makes of an image, chroma 4:2:0.

    Found by bisection of the quality, as files grow with it.
    """
    options, highest = FORMATS[name]
    image = Image.fromarray(pixels)

    def encoded(quality: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, name, quality=quality, **options)
        return buffer.getvalue()

    quality = largest(lambda quality: len(encoded(quality)) <= limit, 0, highest)
    data = encoded(quality or 0)
    with Image.open(io.BytesIO(data)) as decoded:
        back = np.array(decoded.convert("RGB"))
    return Rival(name, quality or 0, len(data), quality is not None, back, psnr(pixels, back))


def largest(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number in ``low..high`` of which ``holds`` is true, where it is so up to some number; or none."""
    held = bisect(range(low, high + 1), False, key=lambda number: not holds(number))
    return low + held - 1 if held else None
