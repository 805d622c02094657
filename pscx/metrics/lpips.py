"""Learned perceptual image patch similarity."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pscx.metrics.backbones import BACKBONES, activations, load, read
from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.metrics.pixels import tensors
from pscx.metrics.weights import find_weights, in_torchmetrics

HEADS = in_torchmetrics("lpips_models")
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-8


@METRICS.register("lpips")
class LPIPS(ImageMetric):
    """Learned perceptual image patch similarity, version 0.1 (Zhang et al. 2018, Eq. 1); equal pictures: 0.

    The learned weights of the channels are those in torchmetrics, whose values it gives; the network is torchvision's.

    Args:
        net: ``alex`` (what most papers report), ``vgg`` or ``squeeze``.
        weights: a file of that network's weights as torchvision publishes them; by default looked for in torch hub's
            folder of checkpoints.
        download: whether to download the published file where it is missing.
    """

    references = ("zhang2018lpips",)
    title, higher_is_better = "LPIPS", False

    def __init__(
        self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: str | None = None, download: bool = False
    ) -> None:
        if net not in BACKBONES:
            raise ValueError(f"net must be one of {', '.join(BACKBONES)}, got {net!r}")
        self.net, self.weights, self.download = net, weights, download
        self.backbone = BACKBONES[net]
        self.least_side = self.backbone.least_side
        if net != "alex":
            self.title = f"LPIPS ({net})"

    @property
    def column(self) -> str:
        return self.name if self.net == "alex" else f"{self.name}_{self.net}"

    def files(self) -> list[Path]:
        backbone = find_weights(self.name, self.backbone.published, self.weights, self.download)
        return [backbone, HEADS / f"{self.net}.pth"]

    def prepare(self) -> None:
        self.network = load(self.backbone.make, self.files()[0], self.device)

    @torch.no_grad()
    def measure(self, original: Image, other: Image) -> float:
        both = torch.cat(tensors(original, other, torch.float32)).to(self.device) / 127.5 - 1
        shift, scale = (both.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        network = self.network = load(self.backbone.make, self.files()[0], self.device)
        maps = activations(network, self.backbone.taps, (both - shift) / scale)
        return float(sum(distance(x, head.to(x)) for x, head in zip(maps, heads(self.net), strict=True)))


def distance(x: Tensor, head: Tensor) -> Tensor:
    """Weighted squared distance of the two maps ``(2, channels, height, width)``, unit length in each place."""
    unit = x / (EPSILON + x.square().sum(1, keepdim=True)).sqrt()
    return (head * (unit[0] - unit[1]) ** 2).sum(0).mean()


@lru_cache
def heads(net: str) -> list[Tensor]:
    """The learned weights of the channels of each map, ``(channels, 1, 1)``."""
    weights = read(HEADS / f"{net}.pth")
    return [weights[f"lin{index}.model.1.weight"][0] for index in range(len(weights))]
