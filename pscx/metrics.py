"""Rate and distortion of one image, as pure functions.

Images are arrays ``(height, width, 3)`` or tensors ``(3, height, width)``, uint8; both of a pair have the same size.
Each function raises ``ValueError`` where they do not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

Pixels = NDArray[np.uint8] | Tensor

WINDOW = 11
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(255^2 / MSE)``, MSE over all pixels and channels; equal: ``inf``.

    >>> black = np.zeros((16, 16, 3), np.uint8)
    >>> round(psnr(black, black + 5), 2)
    34.15
    """
    return float(peak_signal_noise_ratio(*_pair(a, b, torch.float64), data_range=255.0))


def ssim(a: Pixels, b: Pixels) -> float:
    """Structural similarity (Wang et al. 2004, Eq. 13) of the RGB channels, averaged; at most 1, equal images: 1.

    Gaussian window of 11x11 with standard deviation 1.5, K1 = 0.01, K2 = 0.03, at the places where it fits whole.
    """
    return float(_similarity(*_pair(a, b, torch.float32)))


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003, Eq. 7) with its five scales; at most 1, equal images: 1.

    Window as in :func:`ssim`; each term is averaged over the image and its RGB channels, and at least 0. None where
    the smaller side is below 176 pixels: the window of 11 would not fit the fifth scale, 16 times coarser.
    """
    first, second = _pair(a, b, torch.float32)
    if min(first.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    terms = []
    for _ in MS_SSIM_WEIGHTS[:-1]:
        terms.append(_contrast_structure(first, second))
        first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
    terms.append(_similarity(first, second))
    return float(torch.stack(terms).relu().pow(torch.tensor(MS_SSIM_WEIGHTS)).prod())


def bits_per_pixel(num_bytes: int, height: int, width: int) -> float:
    """Rate in bpp of an image of ``height`` by ``width`` pixels in a file of ``num_bytes``, everything included.

    >>> bits_per_pixel(4096, height=128, width=256)
    1.0
    """
    if num_bytes < 0 or height < 1 or width < 1:
        raise ValueError(f"num_bytes must be at least 0, height and width at least 1, got {num_bytes, height, width}")
    return 8 * num_bytes / (height * width)


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    # The mean is taken here: whether that of torchmetrics counts the reflected border depends on its version.
    _, full = structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_full_image=True)
    border = WINDOW // 2
    return full[..., border:-border, border:-border].mean()


def _contrast_structure(a: Tensor, b: Tensor) -> Tensor:
    _, terms = structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_contrast_sensitivity=True)
    return terms.mean()


def _pair(a: Pixels, b: Pixels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both images as ``(1, 3, height, width)`` in [0, 255]."""
    first, second = _batch(a).to(dtype), _batch(b).to(dtype)
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
