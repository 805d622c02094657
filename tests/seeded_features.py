"""A network of seeded weights, for metrics of a set: no published ones are at hand in the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeededFeatures(nn.Module):
    """Means and spreads of random projections of 8x8 blocks: ``(n, 2 * features)`` of ``(n, 3, height, width)``."""

    weight: Tensor

    def __init__(self, features: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(features, 3, 8, 8, generator=generator) / 4)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.conv2d(x.float() / 255, self.weight, stride=8)
        return torch.cat([y.mean((2, 3)), y.std((2, 3))], 1)
