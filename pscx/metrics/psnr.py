"""Peak signal-to-noise ratio."""

from __future__ import annotations

from math import inf, log10

import torch

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import Pixels, tensors


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(255^2 / MSE)``, MSE over all pixels and channels; equal: ``inf``.

    Images are arrays ``(height, width, 3)`` or tensors ``(3, height, width)``, uint8, of the same size; raises
    ``ValueError`` where they are not.

    >>> import numpy as np
    >>> black = np.zeros((16, 16, 3), np.uint8)
    >>> round(psnr(black, black + 5), 2)
    34.15
    """
    first, second = tensors(a, b, torch.float64)
    error = float((first - second).square().mean())
    return 10 * log10(255**2 / error) if error else inf


@METRICS.register("psnr")
class PSNR(ImageMetric):
    """Peak signal-to-noise ratio of the RGB pixels: ``10 log10(255^2 / MSE)``; equal pictures: infinite."""

    references = ()
    title, unit, higher_is_better = "PSNR", "dB", True

    def measure(self, original: Image, other: Image) -> float:
        return psnr(original, other)
