"""Deep image structure and texture similarity."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscx.metrics.backbones import VGG16, activations, load, read, vgg16
from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import tensors
from pscx.metrics.weights import find_weights, in_torchmetrics

HEADS = in_torchmetrics("dists_models/weights.pt")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
C1 = C2 = 1e-6


class L2Pooling(nn.Module):
    """Root of the blurred squares, every second one: pooling without aliasing (Henaff and Simoncelli 2016)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        profile = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (profile[:, None] * profile).expand(channels, 1, 3, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        squares = functional.conv2d(x**2, self.kernel, stride=2, padding=1, groups=len(self.kernel))
        return (squares + 1e-12).sqrt()


def network() -> nn.Sequential:
    """VGG-16 with :class:`L2Pooling` in place of its maxima."""
    return vgg16(L2Pooling)


@METRICS.register("dists")
class DISTS(ImageMetric):
    """Deep image structure and texture similarity (Ding et al. 2022, Eqs. 4-6); equal pictures: 0, lower is better.

    The learned weights of the channels are those in torchmetrics, whose values it gives: the picture is taken as it
    is, without the scaling to 256 pixels that the paper's authors advise.

    Args:
        weights: a file of VGG-16's weights as torchvision publishes them; by default looked for in torch hub's folder
            of checkpoints.
        download: whether to download the published file where it is missing.
    """

    references = ("ding2022dists",)
    title, higher_is_better = "DISTS", False
    least_side = VGG16.least_side

    def __init__(self, weights: str | None = None, download: bool = False) -> None:
        self.weights, self.download = weights, download

    def files(self) -> list[Path]:
        return [find_weights(self.name, VGG16.published, self.weights, self.download), HEADS]

    def prepare(self) -> None:
        self.network = load(network, self.files()[0], self.device)

    @torch.no_grad()
    def measure(self, original: Image, other: Image) -> float:
        both = torch.cat(tensors(original, other, torch.float32)).to(self.device) / 255
        mean, deviation = (both.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        self.network = load(network, self.files()[0], self.device)
        found = activations(self.network, VGG16.taps, (both - mean) / deviation)
        textures, structures = zip(*(terms(x) for x in (both, *found)), strict=True)
        alpha, beta = (weights.to(both) for weights in heads())
        return float(1 - (alpha @ torch.cat(textures) + beta @ torch.cat(structures)) / (alpha.sum() + beta.sum()))


def terms(x: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of texture (Eq. 4) and of structure (Eq. 5) of two maps, ``(channels,)`` each."""
    first, second = x.mean((2, 3))
    texture = (2 * first * second + C1) / (first**2 + second**2 + C1)
    variance = ((x - x.mean((2, 3), keepdim=True)) ** 2).mean((2, 3))
    covariance = (x[0] * x[1]).mean((1, 2)) - first * second
    return texture, (2 * covariance + C2) / (variance.sum(0) + C2)


@lru_cache
def heads() -> tuple[Tensor, Tensor]:
    """The learned weights of texture and of structure, ``(channels of all maps,)``."""
    weights = read(HEADS)
    return weights["alpha"].flatten(), weights["beta"].flatten()
