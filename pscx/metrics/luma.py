"""Luma and chroma at half the resolution, as the authors of GMSD and of HaarPSI compute them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def yiq(rgb: Tensor) -> Tensor:
    """Luma and the two chroma axes of ``(1, 3, height, width)``."""
    return torch.einsum("ij,njhw->nihw", torch.tensor(RGB_TO_YIQ, dtype=rgb.dtype), rgb)


def halved(image: Tensor) -> Tensor:
    """Means of 2x2 pixels; a last odd line or column is averaged with zeros, as in the authors' code."""
    height, width = image.shape[-2:]
    return functional.avg_pool2d(functional.pad(image, (0, width % 2, 0, height % 2)), 2)
