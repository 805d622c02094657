"""Pairs of pictures as metrics take them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8] | Tensor
"""A picture, uint8: an array ``(height, width, 3)`` or a tensor ``(3, height, width)``."""


def arrays(original: Pixels, other: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both as arrays ``(height, width, 3)``. Raises ``ValueError`` where they are no pictures of one size."""
    first, second = (image[0].movedim(0, -1).cpu().numpy() for image in pair(original, other))
    return first, second


def tensors(original: Pixels, other: Pixels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both as tensors ``(1, 3, height, width)`` in [0, 255]; raises as :func:`arrays`."""
    first, second = pair(original, other)
    return first.to(dtype), second.to(dtype)


def pair(original: Pixels, other: Pixels) -> tuple[Tensor, Tensor]:
    """Both as uint8 tensors ``(1, 3, height, width)``; raises as :func:`arrays`."""
    first, second = _batch(original), _batch(other)
    if first.shape != second.shape:
        raise ValueError(f"images must have the same size, got {tuple(first.shape[2:])} and {tuple(second.shape[2:])}")
    return first, second


def _batch(image: Pixels) -> Tensor:
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image)).movedim(-1, 0)
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(
            "an image must be uint8 of the shape (height, width, 3) as an array or (3, height, width) as a tensor, "
            f"got {image.dtype} {tuple(image.shape)}"
        )
    return tensor[None]
