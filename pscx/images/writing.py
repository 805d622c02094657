"""Writes RGB pixels to lossless image files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pscx.errors import PscxError
from pscx.images.colour import srgb_profile
from pscx.images.conversion import check_pixels, size_of
from pscx.runtime.files import write_whole

WEBP_MAX_SIDE = 16383


def write_image(path: str | Path, pixels: NDArray[np.uint8], *, force: bool = False) -> None:
    """Write RGB pixels ``(height, width, 3)``, uint8, without loss as ``.png`` or ``.webp``, whole or not at all.

    The file is tagged as sRGB.

    Raises :class:`PscxError` for another suffix, where the file exists and ``force`` is off, or where it cannot be
    written; ``ValueError`` for pixels of another shape or type.
    """
    write_whole(path, encode_image(pixels, path), force=force)


def encode_image(pixels: NDArray[np.uint8], path: str | Path) -> bytes:
    """The content of a file of the name ``path``; takes and raises what :func:`write_image` does."""
    check_image_suffix(path)
    check_pixels(pixels)
    lossless_webp = Path(path).suffix.lower() == ".webp"
    if lossless_webp and max(pixels.shape[:2]) > WEBP_MAX_SIDE:
        raise PscxError(f"'{path}': WebP holds at most {WEBP_MAX_SIDE} pixels a side, got {size_of(pixels)}; use .png")
    buffer = io.BytesIO()
    if lossless_webp:
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, icc_profile=srgb_profile())
    else:
        tag = PngImagePlugin.PngInfo()
        tag.add(b"sRGB", b"\0")
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=tag)
    return buffer.getvalue()


def check_image_suffix(path: str | Path) -> None:
    """Raise :class:`PscxError` unless :func:`write_image` can write a file of that name."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise PscxError(f"'{path}': JPEG would change the decoded pixels; the output must end in .png or .webp")
    if suffix not in (".png", ".webp"):
        raise PscxError(f"'{path}': the output image must end in .png or .webp, got '{suffix}'")
