"""SSIMULACRA 2, as libjxl defines it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import tensors

SCALES, LEAST_SIDE = 6, 8
C2 = 0.0009
OPSIN = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
BIAS = 0.0037930732552754493
SIGMA, RADIUS = 1.5, 5
GAIN, POLYNOMIAL = 0.9562382616834844, (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
EXPONENT = 0.6276336467831387
# Of the norms (first, fourth) of the maps (similarity, artefacts, lost detail): channel, scale, norm, map.
WEIGHTS = """
0 0.0007376606707406586 0  0 0.0007793481682867309 0
0 0.0004371155730107379 0  1.1041726426657346 0.00066284834129271 0.00015231632783718752
0 0.0016406437456599754 0  1.8422455520539298 11.441172603757666 0
0.0007989109436015163 0.000176816438078653 0  1.8787594979546387 10.94906990605142 0
0.0007289346991508072 0.9677937080626833 0  0.00014003424285435884 0.9981766977854967 0.00031949755934435053
0.0004550992113792063 0 0  0.0013648766163243398 0 0
0 0 0  7.466890328078848 0 17.445833984131262
0.0006235601634041466 0 0  6.683678146179332 0.00037724407979611296 1.027889937768264
225.20515300849274 0 0  19.213238186143016 0.0011401524586618361 0.001237755635509985
176.39317598450694 0 0  24.43300999870476 0.28520802612117757 0.0004485436923833408
0 0 0  34.77906344483772 44.835625328877896 0
0 0 0  0 0 0
0 0.0008680556573291698 0  0 0 0
0 0.0005313191874358747 0  0.00016533814161379112 0 0
0 0 0  0.0004179171803251336 0.0017290828234722833 0
0.0020827005846636437 0 0  8.826982764996862 23.19243343998926 0
95.1080498811086 0.9863978034400682 0.9834382792465353  0.0012286405048278493 171.2667255897307 0.9807858872435379
0 0 0  0.0005130064588990679 0 0.00010854057858411537
"""


@METRICS.register("ssimulacra2")
class SSIMULACRA2(ImageMetric):
    """SSIMULACRA 2.1 (Sneyers 2023, libjxl's tool of that name): at most 100, equal pictures: 100, may be below 0.

    About 30 is low, 50 medium, 70 high and 90 visually lossless quality. Similarity, artefacts and lost detail in the
    XYB channels at up to six scales. It is not symmetric: the first picture is the original.
    """

    references = ("sneyers2023ssimulacra2",)
    title, higher_is_better = "SSIMULACRA 2", True
    least_side = LEAST_SIDE

    def measure(self, original: Image, other: Image) -> float:
        first, second = (linear(x / 255) for x in tensors(original, other, torch.float64))
        norms = [norms_of(xyb(first), xyb(second))]
        while len(norms) < SCALES and min(first.shape[-2:]) >= LEAST_SIDE:
            first, second = halved(first), halved(second)
            norms.append(norms_of(xyb(first), xyb(second)))
        flat = torch.stack(norms, 1).flatten()  # with fewer scales, weights are taken from the front, as libjxl does
        return score(float(flat @ _weights()[: len(flat)]))


def score(error: float) -> float:
    """The score of a weighted sum of norms."""
    first, second, third = POLYNOMIAL
    error *= GAIN
    error = first * error + second * error**2 + third * error**3
    return 100.0 - 10.0 * float(max(error, 0.0) ** EXPONENT)


def linear(srgb: Tensor) -> Tensor:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def halved(image: Tensor) -> Tensor:
    """Means of 2x2 pixels; a last odd line or column is repeated."""
    height, width = image.shape[-2:]
    return functional.avg_pool2d(functional.pad(image, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def xyb(rgb: Tensor) -> Tensor:
    """XYB of linear RGB ``(1, 3, height, width)``, shifted and scaled to about [0, 1]."""
    mixed = torch.einsum("ij,njhw->nihw", torch.tensor(OPSIN, dtype=rgb.dtype), rgb) + BIAS
    long, medium, short = (mixed.clamp(min=0) ** (1 / 3) - BIAS ** (1 / 3)).unbind(1)
    x, y = (long - medium) / 2, (long + medium) / 2
    return torch.stack([14 * x + 0.42, y + 0.01, short - y + 0.55], 1)


def norms_of(first: Tensor, second: Tensor) -> Tensor:
    """Norms of the three maps of each channel at one scale: ``(3 channels, 2 norms, 3 maps)``."""
    mean, other = blurred(first), blurred(second)
    deviation = blurred(first**2) - mean**2 + blurred(second**2) - other**2
    structure = (2 * (blurred(first * second) - mean * other) + C2) / (deviation + C2)
    unlike = (1 - (1 - (mean - other) ** 2) * structure).clamp(min=0)
    edges = (1 + (second - other).abs()) / (1 + (first - mean).abs()) - 1
    maps = torch.stack([unlike, edges.clamp(min=0), (-edges).clamp(min=0)], -1)[0]
    return torch.stack([maps.mean((1, 2)), (maps**4).mean((1, 2)) ** 0.25], 1)


def blurred(image: Tensor) -> Tensor:
    """Gaussian blur of ``(1, 3, height, width)``, zero outside: near the border values are darkened."""
    taps = torch.from_numpy(_taps()).to(image)[None, None]
    vertical = functional.conv2d(image.movedim(1, 0), taps[..., None], padding=(RADIUS - 1, 0))
    return functional.conv2d(vertical, taps[..., None, :], padding=(0, RADIUS - 1)).movedim(0, 1)


@lru_cache
def _taps() -> NDArray[np.float64]:
    """Impulse response of the recursive Gaussian filter of Charalampidis 2016 (Eqs. 37, 44, 50-57)."""
    signs, omega = np.array([1, -1, 1]), np.array([1, 3, 5]) * np.pi / (2 * RADIUS)
    p = signs / np.tan(omega / 2)
    r = signs * p**2 / np.sin(omega)
    rho = np.exp(-(SIGMA**2) * omega**2 / 2) / RADIUS
    zeta = np.cross(p, r)
    zeta /= zeta[2]
    beta = np.linalg.solve(np.array([p, r, zeta]), np.array([1, RADIUS**2 - SIGMA**2, zeta @ rho]))
    offsets = np.arange(1 - RADIUS, RADIUS)
    taps: NDArray[np.float64] = beta @ np.cos(np.outer(omega, offsets))
    return taps


@lru_cache
def _weights() -> Tensor:
    return torch.tensor([float(word) for word in WEIGHTS.split()], dtype=torch.float64)
