"""Exact forms of the layers of diffusers, and the modules of diffusers that are exact when their layers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.activations import GEGLU, GELU, LinearActivation, SwiGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownBlock2D,
    AttnUpBlock2D,
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    ResnetDownsampleBlock2D,
    ResnetUpsampleBlock2D,
    UNetMidBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from diffusers.models.upsampling import Upsample2D
from torch import nn

from pscx.exact.attention import ExactAttention, check_factor
from pscx.exact.forms import FORMS, FRAMES, Precision, nothing
from pscx.exact.gated import ExactGEGLU, ExactProjectedGELU
from pscx.exact.timesteps import ExactSizes, ExactTimesteps


def check_resnet(block: ResnetBlock2D) -> None:
    """Raise ``ValueError`` where the block resizes with a function instead of a module, or divides by an odd number."""
    for name in ("upsample", "downsample"):
        if not isinstance(getattr(block, name), nn.Module | None):
            raise ValueError(f"exact must be false: {name} by a filter has no exact form")
    check_factor("output_scale_factor", block.output_scale_factor)


def check_up_block(block: UpBlock2D | CrossAttnUpBlock2D) -> None:
    """Raise ``ValueError`` where FreeU is on (Si et al. 2024), which takes Fourier transforms."""
    if any(getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")):
        raise ValueError("exact must be false: FreeU has no exact form")


def check_transformer(block: Transformer2DModel) -> None:
    """Raise ``ValueError`` where the input is no map of numbers, but tokens or patches."""
    if not block.is_input_continuous:
        raise ValueError("exact must be false: a transformer of tokens or patches has no exact form")


def check_transformer_block(block: BasicTransformerBlock) -> None:
    """Raise ``ValueError`` where the norms are told the time step or a class."""
    if block.norm_type != "layer_norm":
        raise ValueError(f"exact must be false: a transformer with {block.norm_type} has no exact form")


LAYERS: dict[type[nn.Module], Callable[[Any, Precision], nn.Module]] = {
    Attention: lambda layer, bits: ExactAttention(layer, bits.linear),
    GEGLU: lambda layer, bits: ExactGEGLU(bits.linear(layer.proj)),
    GELU: lambda layer, bits: ExactProjectedGELU(bits.linear(layer.proj), tanh=layer.approximate == "tanh"),
    Timesteps: lambda layer, bits: ExactTimesteps(layer, bits.steps),
    ExactSizes: lambda layer, _: layer,
}
"""The exact form of each kind of layer."""

MODULES: dict[type[nn.Module], Callable[[Any], None]] = {
    UNet2DModel: nothing,
    UNet2DConditionModel: nothing,
    TimestepEmbedding: nothing,
    DownBlock2D: nothing,
    AttnDownBlock2D: nothing,
    ResnetDownsampleBlock2D: nothing,
    UNetMidBlock2D: nothing,
    CrossAttnDownBlock2D: nothing,
    UNetMidBlock2DCrossAttn: nothing,
    CrossAttnUpBlock2D: check_up_block,
    Transformer2DModel: check_transformer,
    BasicTransformerBlock: check_transformer_block,
    FeedForward: nothing,
    SwiGLU: nothing,
    LinearActivation: nothing,
    UpBlock2D: check_up_block,
    AttnUpBlock2D: nothing,
    ResnetUpsampleBlock2D: nothing,
    ResnetBlock2D: check_resnet,
    Downsample2D: nothing,
    Upsample2D: nothing,
}
"""Modules with a check of their options.

Between their layers they do sums of two, products, concatenation, zero padding and repeated pixels.
"""


def register() -> None:
    """Add them to the forms that :mod:`pscx.exact.forms` knows; what stands there already stays."""
    for kind, form in LAYERS.items():
        FORMS.setdefault(kind, form)
    for kind, check in MODULES.items():
        FRAMES.setdefault(kind, check)
