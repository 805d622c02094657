"""Which layers have an exact form, and which modules are exact when their layers are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownBlock2D,
    AttnUpBlock2D,
    DownBlock2D,
    ResnetDownsampleBlock2D,
    ResnetUpsampleBlock2D,
    UNetMidBlock2D,
    UpBlock2D,
)
from diffusers.models.upsampling import Upsample2D
from torch import nn

from pscx.exact.attention import ExactAttention, check_factor
from pscx.exact.average_pool import ExactAveragePool
from pscx.exact.convolution import ACTIVATION_BITS, WEIGHT_BITS, ExactConvolution
from pscx.exact.gelu import ExactGELU
from pscx.exact.group_norm import ExactGroupNorm
from pscx.exact.linear import ExactLinear
from pscx.exact.residual_block import ExactResidualBlock
from pscx.exact.silu import ExactSiLU
from pscx.exact.timesteps import ExactTimesteps
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.residual_unet import ResidualBlock


@dataclass(frozen=True)
class Precision:
    """Bits of weights and of activations, each with its sign, and the steps of the noise schedule."""

    weight_bits: int = WEIGHT_BITS
    activation_bits: int = ACTIVATION_BITS
    steps: int = 1000


def check_resnet(block: ResnetBlock2D) -> None:
    """Raise ``ValueError`` where the block resizes with a function instead of a module, or divides by an odd number."""
    for name in ("upsample", "downsample"):
        if not isinstance(getattr(block, name), nn.Module | None):
            raise ValueError(f"exact must be false: {name} by a filter has no exact form")
    check_factor("output_scale_factor", block.output_scale_factor)


def check_up_block(block: UpBlock2D) -> None:
    """Raise ``ValueError`` where FreeU is on (Si et al. 2024), which takes Fourier transforms."""
    if any(getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")):
        raise ValueError("exact must be false: FreeU has no exact form")


def nothing(_: nn.Module) -> None:
    """Nothing to check."""


FORMS: dict[type[nn.Module], Callable[[Any, Precision], nn.Module]] = {
    nn.Conv2d: lambda layer, bits: ExactConvolution(layer, bits.weight_bits, bits.activation_bits),
    nn.ConvTranspose2d: lambda layer, bits: ExactConvolution(layer, bits.weight_bits, bits.activation_bits),
    nn.Linear: lambda layer, bits: ExactLinear(layer, bits.weight_bits, bits.activation_bits),
    ResidualBlock: lambda block, bits: ExactResidualBlock(block, bits.weight_bits, bits.activation_bits),
    Attention: lambda layer, bits: ExactAttention(layer, bits.weight_bits, bits.activation_bits),
    nn.GroupNorm: lambda layer, _: ExactGroupNorm(layer),
    nn.SiLU: lambda _, __: ExactSiLU(),
    nn.GELU: lambda layer, _: ExactGELU(layer),
    nn.ReLU: lambda layer, _: layer,
    nn.Identity: lambda layer, _: layer,
    nn.Dropout: lambda _, __: nn.Identity(),
    nn.AvgPool2d: lambda layer, _: ExactAveragePool(layer),
    Timesteps: lambda layer, bits: ExactTimesteps(layer, bits.steps),
}
"""The exact form of each kind of layer."""

FRAMES: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.ModuleList: nothing,
    nn.Sequential: nothing,
    ResidualUNet: nothing,
    NoiseExperts: nothing,
    UNet2DModel: nothing,
    TimestepEmbedding: nothing,
    DownBlock2D: nothing,
    AttnDownBlock2D: nothing,
    ResnetDownsampleBlock2D: nothing,
    UNetMidBlock2D: nothing,
    UpBlock2D: check_up_block,
    AttnUpBlock2D: nothing,
    ResnetUpsampleBlock2D: nothing,
    ResnetBlock2D: check_resnet,
    Downsample2D: nothing,
    Upsample2D: nothing,
}
"""Modules whose own code, between their layers, is copies and single IEEE operations on each element.

So is what :mod:`diffusers` does in those named here: sums of two, products, concatenation, zero padding and repeated
pixels. Each comes with a check of the options for which that would not hold; it raises ``ValueError``.
"""
