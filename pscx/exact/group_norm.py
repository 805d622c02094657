"""Group normalisation, Wu and He 2018, with exact sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pscx.exact.convolution import TINY
from pscx.exact.integers import number
from pscx.exact.parts import PART
from pscx.exact.roots import square_root
from pscx.exact.rounding import rounded

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
        mean, variance = moments(x, self.groups)
        root = square_root((variance + self.eps).detach())
        channels = (len(x), -1, *(1,) * (x.ndim - 2))
        weight, bias = (part.view(1, self.groups, -1) for part in (self.weight, self.bias))
        mean, scale = mean.float().expand(-1, -1, weight.shape[2]), root.reciprocal().float() * weight
        shifted = x - mean.reshape(channels)
        return shifted.mul_(scale.reshape(channels)).add_(bias.reshape(1, *channels[1:]))


def moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group of channels of ``(batch, channels, ...)``, ``(batch, groups, 1)`` float64.

    Each channel is summed for itself, a part at a time and in the order in which it lies in memory; what is exact has
    no other order to fear.
    """
    inner = x.ndim > 2 and x.stride(1) == 1
    places = (
        x.movedim(1, -1).flatten(1, -2) if inner else x.reshape(*x.shape[:2], -1).transpose(1, 2)
    )  # (batch, places, channels)
    count = x[0].numel() // groups
    apart = (len(x), groups, -1)
    most = torch.maximum(places.amax(1), -places.amin(1)).view(apart).amax(2, keepdim=True).clamp_min_(TINY)
    unit = most / number((1 << moment_bits(count)) - 1, most)
    perunit = unit.reciprocal().expand(-1, -1, x.shape[1] // groups).reshape(len(x), 1, -1)
    total = torch.zeros(len(x), x.shape[1], dtype=torch.float64, device=x.device)
    square = torch.zeros_like(total)
    for part in torch.split(places, max(1, PART // (len(x) * x.shape[1])), 1):
        whole = rounded(part * perunit).double()
        total += whole.sum(1)
        square += whole.mul_(whole).sum(1)
    mean, square = (sums.view(apart).sum(2, keepdim=True) / number(count, sums) for sums in (total, square))
    unit = unit.double()
    return mean * unit, (square - mean * mean).clamp_min_(0.0) * (unit * unit)


def moment_bits(count: int) -> int:
    """Bits ``b`` of integers below ``2^b`` in magnitude, ``count`` of which have a sum of squares below 2^53."""
    return min(20, (EXACT - count.bit_length()) // 2)
