"""Images in memory and tensors as RGB pixels ``(height, width, 3)``, uint8, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps
from torch import Tensor

from pscx.errors import ImageError
from pscx.images.colour import in_srgb
from pscx.images.pngs import upper_bits
from pscx.runtime.notices import tell

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
WHITE = "white"
MIN_SIDE = 16


def as_pixels(image: Image.Image | NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
    """An image in memory as RGB pixels ``(height, width, 3)``, uint8; at least 16x16.

    Takes a Pillow image of any mode of :func:`read_image` (converted likewise), an array ``(height, width, 3)``
    or ``(height, width)`` of uint8, or a tensor ``(3, height, width)`` or ``(1, 3, height, width)``, either
    floating-point in [-1, 1] or uint8.

    Raises :class:`ImageError` for a side under 16 pixels, ``ValueError`` for another shape, dtype, mode or range,
    ``TypeError`` for another kind of object.
    """
    if isinstance(image, Image.Image):
        told: dict[str, Any] = {str(key): value for key, value in image.info.items()}
        pixels = rgb(image, told, getattr(image, "filename", "") or "the image", None)
    elif isinstance(image, np.ndarray):
        array = np.asarray(image)  # a np.matrix has two dimensions whatever is asked of it
        pixels = np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array
    elif isinstance(image, Tensor):
        pixels = _tensor_pixels(image.detach())
    else:
        raise TypeError(f"image must be a Pillow image, a numpy array or a torch tensor, got {type(image).__name__}")
    check_pixels(pixels)
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ImageError(f"an image must be at least {MIN_SIDE}x{MIN_SIDE} pixels, got {size_of(pixels)}")
    return pixels


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels ``(height, width, 3)``, uint8, as a tensor ``(1, 3, height, width)``, float32 in [-1, 1]."""
    image = torch.from_numpy(np.array(pixels))
    return rearrange(image, "h w c -> 1 c h w").float().contiguous() / 127.5 - 1


def to_pixels(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor ``(1, 3, height, width)``, nominally in [-1, 1], as pixels ``(height, width, 3)``, uint8.

    Values are clipped, then rounded to the nearest level. Raises ``ValueError`` for another shape or for NaN.
    """
    if tensor.ndim != 4 or tensor.shape[:2] != (1, 3):
        raise ValueError(f"tensor must have the shape (1, 3, height, width), got {tuple(tensor.shape)}")
    if tensor.isnan().any():
        raise ValueError("tensor must hold numbers only, got NaN")
    levels = tensor.detach().cpu().double().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = rearrange(levels, "1 c h w -> h w c").contiguous().numpy()
    return pixels


def pattern_pixels(row: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A row of a transform ``(channels, height, width)`` as pixels: grey is 0, the largest magnitude black or white.

    Three channels are shown in the colours that they are; of others the first is shown.
    """
    row = row if len(row) == 3 else row[:1].repeat(3, 0)
    scaled = 0.5 + 0.5 * row / max(float(np.abs(row).max()), 1e-12)
    pixels: NDArray[np.uint8] = (scaled.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return pixels


def background_colour(name: str) -> tuple[int, ...]:
    """Red, green and blue of a colour such as ``white`` or ``#8040ff``. Raises ``ValueError`` where it is none."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ValueError(f"background must be a colour such as white or #8040ff, got '{name}'") from None


def rgb(
    image: Image.Image, info: Mapping[str, Any], name: str | Path, background: tuple[int, ...] | None
) -> NDArray[np.uint8]:
    """A loaded image, of which a file says ``info``, as sRGB pixels; without a background over white."""
    if not is_of_levels(image.mode):
        raise ValueError(f"image mode '{image.mode}' has no fixed range of values; convert it to 'L' or 'RGB' first")
    image = _plain(_upright(image))
    if image.mode not in ("LA", "RGBA"):
        return np.array(in_srgb(image, info, str(name)))
    alpha = image.getchannel("A")
    colour = in_srgb(image.convert(image.mode[:-1]), info, str(name))
    if alpha.getextrema()[0] == 255:
        return np.array(colour)
    if background is None:
        tell(f"'{name}' has transparent pixels: they are laid over white (compress --background COLOR)", "transparent")
    colour.putalpha(alpha)
    below = Image.new("RGBA", colour.size, (*(background or (255, 255, 255)), 255))
    return np.array(Image.alpha_composite(below, colour).convert("RGB"))


def is_of_levels(mode: str) -> bool:
    return mode in MODES or mode.startswith("I;16")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the orientation is optional: if its record is damaged the pixels are used as stored
        return image


def _plain(image: Image.Image) -> Image.Image:
    """An image as L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith("I;16"):
        return upper_bits(image)
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    if image.mode == "CMYK":
        return image
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _tensor_pixels(image: Tensor) -> NDArray[np.uint8]:
    shape = tuple(image.shape)
    if len(shape) < 3 or shape[-3] != 3 or shape[:-3] not in ((), (1,)):
        raise ValueError(f"tensor must have the shape (3, height, width) or (1, 3, height, width), got {shape}")
    image = image.reshape(1, *shape[-3:])
    if image.dtype == torch.uint8:
        pixels: NDArray[np.uint8] = rearrange(image.cpu(), "1 c h w -> h w c").contiguous().numpy()
        return pixels
    if not image.is_floating_point():
        raise ValueError(f"tensor must be floating-point in [-1, 1] or uint8, got {image.dtype}")
    if image.numel() and not (image.min() >= -1 and image.max() <= 1):
        raise ValueError(f"tensor must lie in [-1, 1], got values in [{image.min():g}, {image.max():g}]")
    return to_pixels(image)


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must have the shape (height, width, 3), got {pixels.shape}")


def size_of(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
