"""Weights of convolutions that are whole numbers times a scale, one for each output channel."""

from __future__ import annotations

from typing import TypeAlias, Union

import torch
from torch import Tensor, nn

TOP = 127
"""The largest magnitude of a weight of 8 bits."""
SCALE = "weight_scale"
"""Attribute of a convolution, and end of the name of a tensor in a file: the scales ``(out,)`` of its weights."""

Convolution: TypeAlias = Union[nn.Conv2d, nn.ConvTranspose2d]


def output_axis(layer: nn.Module) -> int:
    """The dimension of a convolution's weights that counts output channels."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def times_scale(whole: Tensor, scale: Tensor, axis: int) -> Tensor:
    """float32 weights: whole numbers times the scale ``(out,)`` of their slice along ``axis``."""
    return whole.float() * scale.float().view([-1 if i == axis else 1 for i in range(whole.ndim)])


def scale_of(layer: nn.Module) -> Tensor | None:
    """The scales ``(out,)`` float32 with which a convolution was loaded; none for other layers."""
    scale: Tensor | None = getattr(layer, SCALE, None)
    return scale


def whole_weight(layer: nn.Module) -> Tensor | None:
    """The int8 numbers that a convolution was loaded from; none where its weights are not those numbers any more."""
    scale = scale_of(layer)
    if scale is None or not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return None
    weight, axis = layer.weight.detach(), output_axis(layer)
    if weight.dtype != torch.float32 or weight.is_meta:
        return None
    scale = scale.to(weight.device)
    whole = (weight / times_scale(torch.ones((), device=weight.device).expand_as(weight), scale, axis)).round()
    if not bool((whole.abs() <= TOP).all()) or not torch.equal(times_scale(whole, scale, axis), weight):
        return None
    return whole.to(torch.int8)
