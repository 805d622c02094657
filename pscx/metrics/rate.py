"""Rate of an image in a file."""

from __future__ import annotations


def bits_per_pixel(num_bytes: int, height: int, width: int) -> float:
    """Rate in bpp of an image of ``height`` by ``width`` pixels in a file of ``num_bytes``, everything included.

    >>> bits_per_pixel(4096, height=128, width=256)
    1.0
    """
    if num_bytes < 0 or height < 1 or width < 1:
        raise ValueError(f"num_bytes must be at least 0, height and width at least 1, got {num_bytes, height, width}")
    return 8 * num_bytes / (height * width)
