"""Linear layers whose sums are exact, as those of :class:`pscx.exact.ExactConvolution`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscx.exact.convolution import splits, whole_weights
from pscx.exact.integers import whole_numbers

LINEAR_WEIGHT_BITS, LINEAR_ACTIVATION_BITS = 9, 10
"""Of products that are few beside those of convolutions, and are in float32 everywhere."""


class ExactLinear(nn.Module):
    """``layer`` with integer weights and, in each call, integer activations: one result on every machine.

    A sample (an index of the first dimension) is divided by its largest magnitude over ``2^(activation_bits - 1) - 1``
    and rounded; the weights of an output likewise, once. Products are summed by torch's float32 product. No partial
    sum can reach 2^24: inputs are split into groups for which the largest activation times the L1 norm of the weights
    stays below it. Scaling, adding groups and the bias are single IEEE operations on each element.

    Args:
        layer: the layer that this one stands for.
        weight_bits: of a weight, with its sign; 2 to 16.
        activation_bits: of an activation, with its sign; 2 to 16.

    Raises:
        ValueError: a number is out of range, or one input alone exceeds the bound.
    """

    def __init__(
        self,
        layer: nn.Linear,
        weight_bits: int = LINEAR_WEIGHT_BITS,
        activation_bits: int = LINEAR_ACTIVATION_BITS,
    ) -> None:
        super().__init__()
        for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
            if not 2 <= bits <= 16:
                raise ValueError(f"exact.{name} must lie in 2..16, got {bits}")
        whole, scale = whole_weights(layer.weight.detach().double(), 0, weight_bits)
        self.top = (1 << (activation_bits - 1)) - 1
        self.splits = splits(whole.abs() * self.top)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("weight", whole.float())
        self.register_buffer("scale", scale.float())
        self.register_buffer("bias", torch.zeros(len(scale)) if layer.bias is None else layer.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(batch, ..., features)`` float32; a sample's result does not see the others."""
        whole, unit = whole_numbers(x, tuple(range(1, x.ndim)), self.top)
        total = functional.linear(whole[..., self.splits[0]], self.weight[:, self.splits[0]])
        for part in self.splits[1:]:
            total += functional.linear(whole[..., part], self.weight[:, part])
        return total.mul_(unit * self.scale).add_(self.bias)
