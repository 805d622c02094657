"""Which layers have an exact form, and which modules are exact when their layers are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from pscx.exact.average_pool import ExactAveragePool
from pscx.exact.convolution import ACTIVATION_BITS, WEIGHT_BITS, ExactConvolution
from pscx.exact.gelu import ExactGELU
from pscx.exact.group_norm import ExactGroupNorm
from pscx.exact.layer_norm import ExactLayerNorm
from pscx.exact.linear import LINEAR_ACTIVATION_BITS, LINEAR_WEIGHT_BITS, ExactLinear
from pscx.exact.residual_block import ExactResidualBlock
from pscx.exact.silu import ExactSiLU
from pscx.exact.wide import ExactWideConvolution, ExactWideLinear
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.residual_unet import ResidualBlock


@dataclass(frozen=True)
class Precision:
    """Bits of weights and of activations, each with its sign, and the steps of the noise schedule.

    Convolutions have some, linear layers and the projections of attention others. With ``wide``, all of them have
    weights and activations of 16 bits (:mod:`pscx.exact.wide`), whatever the other numbers say.
    """

    weight_bits: int = WEIGHT_BITS
    activation_bits: int = ACTIVATION_BITS
    linear_weight_bits: int = LINEAR_WEIGHT_BITS
    linear_activation_bits: int = LINEAR_ACTIVATION_BITS
    steps: int = 1000
    wide: bool = False

    def convolution(self, layer: nn.Conv2d) -> nn.Module:
        """The exact form of a convolution. Raises ``ValueError`` where it has none."""
        return ExactWideConvolution(layer) if self.wide else ExactConvolution(layer, *self._of_convolutions)

    def transposed(self, layer: nn.ConvTranspose2d) -> nn.Module:
        """The exact form of a transposed convolution. Raises ``ValueError`` where it has none."""
        if self.wide:
            raise ValueError("exact must be false: a transposed convolution has no exact form with weights of 16 bits")
        return ExactConvolution(layer, *self._of_convolutions)

    def linear(self, layer: nn.Linear) -> nn.Module:
        """The exact form of a linear layer. Raises ``ValueError`` where it has none."""
        if self.wide:
            return ExactWideLinear(layer)
        return ExactLinear(layer, self.linear_weight_bits, self.linear_activation_bits)

    @property
    def _of_convolutions(self) -> tuple[int, int]:
        return self.weight_bits, self.activation_bits


def nothing(_: nn.Module) -> None:
    """Nothing to check."""


FORMS: dict[type[nn.Module], Callable[[Any, Precision], nn.Module]] = {
    nn.Conv2d: lambda layer, bits: bits.convolution(layer),
    nn.ConvTranspose2d: lambda layer, bits: bits.transposed(layer),
    nn.Linear: lambda layer, bits: bits.linear(layer),
    ResidualBlock: lambda block, bits: ExactResidualBlock(block, bits.weight_bits, bits.activation_bits),
    nn.GroupNorm: lambda layer, _: ExactGroupNorm(layer),
    nn.LayerNorm: lambda layer, _: ExactLayerNorm(layer),
    nn.Embedding: lambda layer, _: layer,
    nn.SiLU: lambda _, __: ExactSiLU(),
    nn.GELU: lambda layer, _: ExactGELU(layer),
    nn.ReLU: lambda layer, _: layer,
    nn.Identity: lambda layer, _: layer,
    nn.Dropout: lambda _, __: nn.Identity(),
    nn.AvgPool2d: lambda layer, _: ExactAveragePool(layer),
}
"""The exact form of each kind of layer; of diffusers' layers once they are met (:mod:`pscx.exact.diffusers_layers`)."""

FRAMES: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.ModuleList: nothing,
    nn.Sequential: nothing,
    ResidualUNet: nothing,
    NoiseExperts: nothing,
}
"""Modules whose own code, between their layers, is copies and single IEEE operations on each element.

Each comes with a check of the options for which that would not hold; it raises ``ValueError``.
"""
