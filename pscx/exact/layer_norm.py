"""Layer normalisation, Ba et al. 2016, with exact sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pscx.exact.convolution import TINY
from pscx.exact.group_norm import moment_bits
from pscx.exact.integers import number
from pscx.exact.parts import PART
from pscx.exact.roots import square_root
from pscx.exact.rounding import rounded


class ExactLayerNorm(nn.Module):
    """``layer`` with mean and variance from integers: one result on every machine.

    As in :class:`pscx.exact.ExactGroupNorm`, with a token, all numbers along the last dimension, in place of a group:
    integers of at most 20 bits, whose sum and sum of squares stay below 2^53 and are exact in float64.

    Args:
        layer: the layer that this one stands for.

    Raises:
        ValueError: the layer takes its moments over more than one dimension.
    """

    def __init__(self, layer: nn.LayerNorm) -> None:
        super().__init__()
        if len(layer.normalized_shape) != 1:
            raise ValueError(f"exact must be false: {layer} has no exact form, a norm over one dimension has")
        (features,) = layer.normalized_shape
        self.eps = layer.eps
        self.weight: Tensor
        self.bias: Tensor
        for name, tensor, absent in (("weight", layer.weight, torch.ones), ("bias", layer.bias, torch.zeros)):
            self.register_buffer(name, absent(features) if tensor is None else tensor.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(..., features)`` float32; a token's result does not see the others."""
        tokens = x.reshape(-1, x.shape[-1])
        found = torch.empty_like(tokens)
        size = max(1, PART // tokens.shape[1]) if tokens.device.type == "cpu" else max(1, len(tokens))
        for part, place in zip(torch.split(tokens, size), torch.split(found, size), strict=True):
            mean, variance = token_moments(part)
            root = square_root((variance + self.eps).detach()).reciprocal().float()
            torch.sub(part, mean.float(), out=place).mul_(root * self.weight).add_(self.bias)
        return found.view(x.shape)


def token_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each row of ``(tokens, features)`` float32, ``(tokens, 1)`` float64."""
    count = tokens.shape[1]
    most = torch.maximum(tokens.amax(1, keepdim=True), -tokens.amin(1, keepdim=True)).clamp_min_(TINY)
    unit = most / number((1 << moment_bits(count)) - 1, most)
    whole = rounded(tokens * unit.reciprocal()).double()
    mean = whole.sum(1, keepdim=True)
    square = whole.mul_(whole).sum(1, keepdim=True)
    mean, square = (sums / number(count, sums) for sums in (mean, square))
    unit = unit.double()
    return mean * unit, (square - mean * mean).clamp_min_(0.0) * (unit * unit)
