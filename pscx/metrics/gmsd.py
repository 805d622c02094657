"""Gradient magnitude similarity deviation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.luma import halved, yiq
from pscx.metrics.pixels import tensors

CONSTANT = 170.0  # T of the paper's section II.C, for values in [0, 255]


@METRICS.register("gmsd")
class GMSD(ImageMetric):
    """Gradient magnitude similarity deviation (Xue et al. 2014, Eqs. 4 and 6); equal pictures: 0, lower is better.

    Prewitt gradients of the luma at half the resolution, zero outside the picture as in the authors' code, T = 170.
    The deviation is that of a sample: over the number of places less one.
    """

    references = ("xue2014gmsd",)
    title, higher_is_better = "GMSD", False
    least_side = 3

    def measure(self, original: Image, other: Image) -> float:
        first, second = (gradient(halved(yiq(x)[:, :1])) for x in tensors(original, other, torch.float64))
        similarity = (2 * first * second + CONSTANT) / (first**2 + second**2 + CONSTANT)
        return float(similarity.std())


def gradient(luma: Tensor) -> Tensor:
    """Magnitude of the Prewitt gradient of ``(1, 1, height, width)`` (Xue et al. 2014, Eqs. 1-3)."""
    across = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=luma.dtype) / 3
    kernels = torch.stack([across, across.T])[:, None]
    return functional.conv2d(luma, kernels, padding=1).square().sum(1, keepdim=True).sqrt()
