"""Distortions of photographs that no library decides on, so that stored values of metrics stay right."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def coarse(image: Pixels) -> Pixels:
    """Values rounded to multiples of 32."""
    rounded: Pixels = np.minimum((image.astype(int) + 16) // 32 * 32, 255).astype(np.uint8)
    return rounded


def blocky(image: Pixels) -> Pixels:
    """Means of 4x4 pixels, rounded."""
    height, width, _ = image.shape
    out = image.astype(float)
    for y in range(0, height, 4):
        for x in range(0, width, 4):
            out[y : y + 4, x : x + 4] = np.rint(image[y : y + 4, x : x + 4].reshape(-1, 3).mean(0))
    return out.astype(np.uint8)


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Through JPEG at that quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.array(decoded)
