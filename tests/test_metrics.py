"""pscx.metrics against implementations of their own: numpy, and the papers' formulas written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from pscx.metrics import bits_per_pixel, ms_ssim, psnr, ssim

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, Wang et al. 2003, section 3.2."""


def windowed(channel: Floats) -> Floats:
    """Gaussian-weighted means (11x11, standard deviation 1.5) at every place where the window fits."""
    profile = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(profile, profile) / profile.sum() ** 2
    patches = np.lib.stride_tricks.sliding_window_view(channel, (11, 11))
    means: Floats = np.einsum("hwij,ij->hw", patches, window)
    return means


def ssim_terms(a: Floats, b: Floats) -> tuple[float, float]:
    """Means over the image of SSIM and of its contrast-structure part, Wang et al. 2004, Eqs. 13-16."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = windowed(a), windowed(b)
    var_a, var_b = windowed(a * a) - mean_a**2, windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean(), structure.mean()


def halved(channel: Floats) -> Floats:
    height, width = (side // 2 * 2 for side in channel.shape)
    means: Floats = channel[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return means


def channels(image: Pixels) -> Floats:
    return np.moveaxis(image.astype(float), -1, 0)


def noisy(image: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.fixture
def large(cat: Pixels) -> Pixels:
    """``(196, 280, 3)``: large enough for five scales, with sides that do not halve evenly."""
    return np.array(Image.fromarray(cat).resize((280, 196), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("sigma", [1, 10, 60])
def test_psnr(cat: Pixels, sigma: float) -> None:
    other = noisy(cat, sigma)
    expected = 10 * np.log10(255**2 / np.mean((cat.astype(float) - other) ** 2))
    assert psnr(cat, other) == pytest.approx(expected, rel=1e-7)


def test_psnr_is_that_of_torchmetrics(cat: Pixels) -> None:
    a, b = (torch.from_numpy(image).double() for image in (cat, cat[::-1].copy()))
    expected = float(peak_signal_noise_ratio(a, b, data_range=255.0))
    assert psnr(cat, cat[::-1].copy()) == pytest.approx(expected, rel=1e-7)


def test_psnr_of_opposites_and_of_equals(cat: Pixels) -> None:
    assert psnr(np.zeros_like(cat), np.full_like(cat, 255)) == pytest.approx(0, abs=1e-6)
    assert psnr(cat, cat.copy()) == math.inf


@pytest.mark.parametrize("sigma", [1, 10, 60])
def test_ssim(rocket: Pixels, sigma: float) -> None:
    other = noisy(rocket, sigma)
    expected = np.mean([ssim_terms(a, b)[0] for a, b in zip(channels(rocket), channels(other), strict=True)])
    assert ssim(rocket, other) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sigma", [1, 10, 60])
def test_ms_ssim(large: Pixels, sigma: float) -> None:
    scale = list(zip(channels(large), channels(noisy(large, sigma)), strict=True))
    expected = 1.0
    for index, weight in enumerate(WEIGHTS):
        whole, structure = np.mean([ssim_terms(a, b) for a, b in scale], axis=0)
        expected *= (whole if index == 4 else structure) ** weight
        scale = [(halved(a), halved(b)) for a, b in scale]
    assert ms_ssim(large, noisy(large, sigma)) == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_only_where_five_scales_fit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (176, 180, 3), np.uint8)
    assert ms_ssim(pixels, pixels) == pytest.approx(1)
    assert ms_ssim(pixels[:175], pixels[:175]) is None
    turned = pixels[:175].transpose(1, 0, 2)
    assert ms_ssim(turned, turned) is None


def test_opposite_structure_scores_zero(large: Pixels) -> None:
    assert ms_ssim(large, 255 - large) == 0


def test_equal_images_are_most_similar(large: Pixels) -> None:
    assert ssim(large, large) == pytest.approx(1, abs=1e-6)
    assert ms_ssim(large, large) == pytest.approx(1, abs=1e-6)


def test_more_noise_is_worse_by_every_measure(large: Pixels) -> None:
    for measure in (psnr, ssim, ms_ssim):
        scores = [score for sigma in (2, 16, 128) if (score := measure(large, noisy(large, sigma))) is not None]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 1.05 * scores[-1]


def test_arrays_and_tensors_agree(large: Pixels) -> None:
    other = noisy(large, 5)
    first, second = (torch.from_numpy(image).permute(2, 0, 1) for image in (large, other))
    for measure in (psnr, ssim, ms_ssim):
        assert measure(first, second) == measure(large, other) == measure(large, second)


@pytest.mark.parametrize("measure", [psnr, ssim, ms_ssim])
def test_images_that_cannot_be_compared(measure: Callable[[Any, Any], object], cat: Pixels, rocket: Pixels) -> None:
    with pytest.raises(ValueError, match=r"same size, got \(112, 160\) and \(128, 96\)"):
        measure(cat, rocket)
    with pytest.raises(ValueError, match=r"must be uint8 .* got float64 \(112, 160, 3\)"):
        measure(cat, cat / 255)
    with pytest.raises(ValueError, match=r"got torch.uint8 \(112, 160, 3\)"):
        measure(cat, torch.from_numpy(cat))


def test_bits_per_pixel() -> None:
    assert bits_per_pixel(3072, 512, 512) == 0.09375
    assert bits_per_pixel(1, 2, 4) == 1


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_bits_per_pixel_of_nothing(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="num_bytes must be at least 0"):
        bits_per_pixel(*arguments)
