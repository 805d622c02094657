"""Haar wavelet-based perceptual similarity index."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.luma import halved, yiq
from pscx.metrics.pixels import tensors

CONSTANT, ALPHA = 30.0, 4.2  # section 3.2 of the paper, for values in [0, 255]
SCALES = 3


@METRICS.register("haarpsi")
class HaarPSI(ImageMetric):
    """Haar perceptual similarity index (Reisenhofer et al. 2018, Eqs. 9-13) with colour; at most 1, equal pictures: 1.

    Luma and chroma at half the resolution, zero outside the picture as in the authors' code; C = 30, alpha = 4.2.
    Similarities of Haar coefficients of the two finest scales, weighted by the third.
    """

    references = ("reisenhofer2018haarpsi",)
    title, higher_is_better = "HaarPSI", True
    least_side = 2**SCALES

    def measure(self, original: Image, other: Image) -> float:
        first, second = (halved(yiq(x)) for x in tensors(original, other, torch.float64))
        details = [haar(torch.cat([first[:, :1], second[:, :1]]), 2**scale) for scale in range(1, SCALES + 1)]
        local = torch.stack([similar(*detail) for detail in details[:-1]]).mean(0)  # (2 orientations, height, width)
        weight = details[-1].amax(0)
        chroma = similar(*(box(image[0, 1:]).abs() for image in (first, second))).mean(0, keepdim=True)
        local = torch.cat([local, chroma])
        weight = torch.cat([weight, weight.mean(0, keepdim=True)])
        if not weight.any():  # both pictures are flat, and the paper's weights are 0 / 0
            weight = torch.ones_like(weight)
        score = float((torch.sigmoid(ALPHA * local) * weight).sum() / weight.sum())
        return (log(score / (1 - score)) / ALPHA) ** 2


def similar(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of two magnitudes, in (0, 1] (Eq. 8)."""
    return (2 * a * b + CONSTANT) / (a**2 + b**2 + CONSTANT)


def haar(luma: Tensor, side: int) -> Tensor:
    """Magnitudes of the Haar coefficients of ``(n, 1, h, w)`` at every place: ``(n, 2, h, w)``, both orientations."""
    low = torch.full((side, side), 1.0 / side, dtype=luma.dtype)
    low[side // 2 :] *= -1
    kernels = torch.stack([low, low.T])[:, None]
    return functional.conv2d(_padded(luma, side), kernels).abs()


def box(channels: Tensor) -> Tensor:
    """Means of 2x2 pixels at every place, ``(channels, h, w)``."""
    return functional.avg_pool2d(_padded(channels, 2), 2, stride=1)


def _padded(image: Tensor, side: int) -> Tensor:
    """With zeros around, so that a window of an even side lies where MATLAB's ``conv2(..., 'same')`` has it."""
    before, after = side // 2 - 1, side // 2
    return functional.pad(image, (before, after, before, after))
