"""Structural similarity, and its terms that the multi-scale form takes too."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import Pixels, tensors

WINDOW = 11


def ssim(a: Pixels, b: Pixels) -> float:
    """Structural similarity (Wang et al. 2004, Eq. 13) of the RGB channels, averaged; at most 1, equal images: 1.

    Gaussian window of 11x11 with standard deviation 1.5, K1 = 0.01, K2 = 0.03, at the places where it fits whole.
    Images as in :func:`pscx.metrics.psnr`.
    """
    return float(similarity(*tensors(a, b, torch.float32)))


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of ``(1, 3, height, width)`` in [0, 255], averaged where the window fits."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # it takes longer to load than torch

    # The mean is taken here: whether that of torchmetrics counts the reflected border depends on its version.
    _, full = structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_full_image=True)
    border = WINDOW // 2
    return full[..., border:-border, border:-border].mean()


def contrast_structure(a: Tensor, b: Tensor) -> Tensor:
    """The product of SSIM's contrast and structure terms, averaged where the window fits."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, terms = structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_contrast_sensitivity=True)
    return terms.mean()


@METRICS.register("ssim")
class SSIM(ImageMetric):
    """Structural similarity (Wang et al. 2004, Eq. 13), a window of 11x11 on RGB; at most 1, equal pictures: 1."""

    references = ("wang2004ssim",)
    title, higher_is_better = "SSIM", True
    least_side = WINDOW

    def measure(self, original: Image, other: Image) -> float:
        return ssim(original, other)
