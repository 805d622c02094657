"""Convolutional networks whose activations LPIPS and DISTS compare, with torchvision's published weights.

The layers stand at torchvision's places in ``features``, so that its state dicts load. torchvision is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.metrics.held import held
from pscx.metrics.weights import Published, sha256_of

PREFIX = "features."


class Fire(nn.Module):
    """SqueezeNet's module (Iandola et al. 2016, section 3.2): 1x1 to fewer channels, then 1x1 beside 3x3."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def alexnet() -> nn.Sequential:
    """AlexNet as torchvision has it (Krizhevsky 2014), up to the fifth activation."""
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def vgg16(pool: Callable[[int], nn.Module] = lambda channels: nn.MaxPool2d(2)) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015, table 1, D), up to the last activation; ``pool`` makes its poolings."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [pool(channels)] if layers else []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    layers = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    channels = 64
    for squeezed, expanded, depth in ((16, 64, 2), (32, 128, 2), (48, 192, 2), (64, 256, 2)):
        layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if squeezed < 64 else []
        for _ in range(depth):
            layers += [Fire(channels, squeezed, expanded)]
            channels = 2 * expanded
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Backbone:
    """A network, the layers after which its activations are taken, its published weights and its smallest input."""

    make: Callable[[], nn.Sequential]
    taps: tuple[int, ...]
    published: Published
    least_side: int


TORCHVISION = "https://download.pytorch.org/models/"
ALEXNET = Backbone(alexnet, (1, 4, 7, 9, 11), Published(f"{TORCHVISION}alexnet-owt-7be5be79.pth", "7be5be79"), 31)
VGG16 = Backbone(vgg16, (3, 8, 15, 22, 29), Published(f"{TORCHVISION}vgg16-397923af.pth", "397923af"), 16)
SQUEEZENET = Backbone(
    squeezenet, (1, 4, 7, 9, 10, 11, 12), Published(f"{TORCHVISION}squeezenet1_1-b8a52dc0.pth", "b8a52dc0"), 17
)

BACKBONES = {"alex": ALEXNET, "vgg": VGG16, "squeeze": SQUEEZENET}


def activations(network: nn.Sequential, taps: tuple[int, ...], x: Tensor) -> list[Tensor]:
    """What the layers ``taps`` give for ``(n, 3, height, width)``."""
    found = []
    for index, layer in enumerate(network):
        x = layer(x)
        if index in taps:
            found.append(x)
    return found


def load(make: Callable[[], nn.Sequential], file: Path, device: torch.device) -> nn.Sequential:
    """The network with the weights of ``file``, loaded once for all metrics that hold it.

    Raises :class:`PscxError` where they are another's.
    """
    return held((make, file, sha256_of(file), device), lambda: _loaded(make, file, device))


def _loaded(make: Callable[[], nn.Sequential], file: Path, device: torch.device) -> nn.Sequential:
    weights = {key.removeprefix(PREFIX): value for key, value in read(file).items() if key.startswith(PREFIX)}
    network = make()
    wanted = network.state_dict()
    for key, value in wanted.items():
        if key not in weights or weights[key].shape != value.shape:
            raise PscxError(f"{file} has no weights {PREFIX}{key} of the shape {tuple(value.shape)}")
    network.load_state_dict({key: weights[key] for key in wanted})
    return network.requires_grad_(False).eval().to(device)


def read(file: Path) -> dict[str, Any]:
    """The tensors of a file of weights, no code of it run. Raises :class:`PscxError` where it holds no such thing."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of several libraries, depending on what the file is
        raise PscxError(f"{file} cannot be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise PscxError(f"{file} cannot be read as weights: it holds a {type(found).__name__}")
    return found
