"""Group normalisation, Wu and He 2018, with exact sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pscx.exact.integers import number, whole_numbers
from pscx.exact.roots import square_root

EXACT = 53
"""Integers of up to so many bits are exact in float64, and so is every sum that stays within them."""


class ExactGroupNorm(nn.Module):
    """``layer`` with mean and variance from integers: one result on every machine.

    The numbers of a sample's group are rounded to integers of as many bits, at most 20, as keep every partial sum of
    their squares below 2^53. Their sum and that of their squares are exact in float64. Mean, variance and root are
    single float64 operations, the rest single float32 operations on each element, on the numbers as they came.

    Args:
        layer: the layer that this one stands for.
    """

    def __init__(self, layer: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = layer.num_groups, layer.eps
        ones, zeros = torch.ones(layer.num_channels), torch.zeros(layer.num_channels)
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", layer.weight.detach().float() if layer.affine else ones)
        self.register_buffer("bias", layer.bias.detach().float() if layer.affine else zeros)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(batch, channels, ...)`` float32; a sample's result does not see the others."""
        groups = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        mean, variance = moments(groups)
        root = square_root((variance + self.eps).detach().cpu()).to(variance)
        channels = (1, self.groups, -1, *(1,) * (x.ndim - 2))
        scale = root.reciprocal().float() * self.weight.view(channels)
        return (groups - mean.float()).mul_(scale).add_(self.bias.view(channels)).flatten(1, 2)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all but two dimensions, in float64 and with those dimensions kept at size 1."""
    axes = tuple(range(2, x.ndim))
    count = x[0, 0].numel()
    whole, unit = whole_numbers(x, axes, (1 << moment_bits(count)) - 1)
    whole, unit = whole.double(), unit.double()
    mean = whole.sum(axes, keepdim=True) / number(count, whole)
    square = (whole * whole).sum(axes, keepdim=True) / number(count, whole)
    return mean * unit, (square - mean * mean).clamp_min_(0.0) * (unit * unit)


def moment_bits(count: int) -> int:
    """Bits ``b`` of integers below ``2^b`` in magnitude, ``count`` of which have a sum of squares below 2^53."""
    return min(20, (EXACT - count.bit_length()) // 2)
