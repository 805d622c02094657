"""Multi-scale structural similarity."""

from __future__ import annotations

import torch
from torch.nn import functional

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import Pixels, tensors
from pscx.metrics.ssim import WINDOW, contrast_structure, similarity

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MIN_SIDE = WINDOW * 2 ** (len(WEIGHTS) - 1)


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003, Eq. 7) with its five scales; at most 1, equal images: 1.

    Window and images as in :func:`pscx.metrics.ssim`; each term is averaged over the image and its RGB channels, and
    at least 0. None where the smaller side is below 176 pixels: the window of 11 would not fit the fifth scale, 16
    times coarser.
    """
    first, second = tensors(a, b, torch.float32)
    if min(first.shape[-2:]) < MIN_SIDE:
        return None
    terms = []
    for _ in WEIGHTS[:-1]:
        terms.append(contrast_structure(first, second))
        first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
    terms.append(similarity(first, second))
    return float(torch.stack(terms).relu().pow(torch.tensor(WEIGHTS)).prod())


@METRICS.register("ms_ssim")
class MSSSIM(ImageMetric):
    """Multi-scale structural similarity (Wang et al. 2003, Eq. 7), five scales on RGB; at most 1, equal pictures: 1."""

    references = ("wang2003msssim",)
    title, higher_is_better = "MS-SSIM", True
    least_side = MIN_SIDE

    def measure(self, original: Image, other: Image) -> float:
        score = ms_ssim(original, other)
        assert score is not None  # the picture is large enough
        return score
