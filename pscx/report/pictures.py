"""Pictures as data URIs: photographs without loss, frames with some, maps in colours, rows of the transform in grey."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pscx.images import WEBP_MAX_SIDE, pattern_pixels
from pscx.rate_control.trials import Pixels

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

COLORS = "viridis"
FRAME_SIDE, FRAME_QUALITY = 384, 85
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 96, 80
PATTERN_SIDE = 64

Map = NDArray[np.float64]


def faithful(pixels: Pixels, limit: int) -> tuple[str, int]:
    """A photograph without loss, shrunk by the first of 1, 2, 4, ... that takes at most ``limit`` characters.

    Returns the URI and that factor. Shrinking is by the mean of squares of so many pixels.
    """
    image, factor = Image.fromarray(pixels), 1
    while max(image.size) > WEBP_MAX_SIDE * factor:
        factor *= 2
    while True:
        text = _webp(image.reduce(factor) if factor > 1 else image, lossless=True)
        if len(text) <= limit or min(image.size) < 2 * factor:
            return text, factor
        factor *= 2


def frame(pixels: Pixels) -> str:
    """A frame of an animation: lossy WebP, shrunk to 384 pixels."""
    return _webp(_shrunk(Image.fromarray(pixels), FRAME_SIDE), quality=FRAME_QUALITY)


def thumbnail(pixels: Pixels) -> str:
    """A thumbnail."""
    return _webp(_shrunk(Image.fromarray(pixels), THUMBNAIL_SIDE), quality=THUMBNAIL_QUALITY)


def map_picture(values: Map, top: float, padded: tuple[int, int], image: tuple[int, int]) -> str:
    """A map ``(down, across)`` over an image, colours from 0 to ``top``; without what lies over its padding.

    ``padded`` and ``image`` are ``(height, width)`` in pixels.
    """
    scaled = np.clip(values / top if top > 0 else np.zeros_like(values), 0, 1)
    picture = Image.fromarray((_colors()(scaled)[..., :3] * 255).round().astype(np.uint8))
    coarse = max(values.shape) < FRAME_SIDE
    picture = picture.resize(padded[::-1], Image.Resampling.NEAREST if coarse else Image.Resampling.BILINEAR)
    picture = _shrunk(picture.crop((0, 0, image[1], image[0])), FRAME_SIDE)
    return _webp(picture, lossless=True) if coarse and values.size <= 4096 else _webp(picture, quality=FRAME_QUALITY)


def pattern_picture(row: Map) -> str:
    """A row of the transform ``(channels, height, width)`` as :func:`pscx.images.pattern_pixels` shows it."""
    picture = Image.fromarray(pattern_pixels(row))
    repeat = max(1, PATTERN_SIDE // max(picture.size))
    picture = picture.resize((picture.width * repeat, picture.height * repeat), Image.Resampling.NEAREST)
    return _webp(_shrunk(picture, FRAME_SIDE // 2), lossless=True)


def legend(steps: int = 9) -> str:
    """The colours of maps from the lowest to the highest, as CSS."""
    colors = (_colors()(np.linspace(0, 1, steps))[:, :3] * 255).round().astype(int)
    return f"linear-gradient(90deg, {', '.join('#{:02x}{:02x}{:02x}'.format(*color) for color in colors)})"


def _colors() -> Colormap:
    from matplotlib import colormaps

    return colormaps[COLORS]


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """At most so many pixels a side."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _webp(image: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=4, **options)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"
