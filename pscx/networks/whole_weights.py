"""Weights of convolutions that are whole numbers of 8 bits times a scale, one for each output channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

TOP = 127
"""The largest magnitude of a weight of 8 bits."""
WEIGHT, SCALE = ".weight", ".weight_scale"
"""Ends of the names of int8 weights and of their scales in a file."""


def output_axis(layer: nn.Module) -> int:
    """The dimension of a convolution's weights that counts output channels."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def scale_of(layer: nn.Module) -> Tensor | None:
    """The scales ``(out,)`` float32 of the whole numbers from which a convolution was loaded; none where it was not.

    They are no part of its state; copies have them too.
    """
    scale: Tensor | None = getattr(layer, "weight_scale", None)
    return scale


def times_scale(whole: Tensor, scale: Tensor, layer: nn.Module) -> Tensor:
    """float32 weights of ``layer``: whole numbers times the scale ``(out,)`` of their output."""
    return whole.float() * _beside(whole, scale, layer)


def set_whole(layer: nn.Conv2d | nn.ConvTranspose2d, whole: Tensor, scale: Tensor) -> None:
    """Give a convolution the weights ``whole * scale``: integers within 127, and a scale ``(out,)`` over 0."""
    layer.weight.data = times_scale(whole, scale, layer).to(layer.weight)
    layer.weight_scale = scale.float()


def whole_weight(layer: nn.Module) -> Tensor | None:
    """The int8 numbers from which a convolution was loaded; none where it was not, or has other weights now."""
    scale = scale_of(layer)
    if scale is None or not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.weight.dtype != torch.float32:
        return None
    weight = layer.weight.detach()
    whole = (weight / _beside(weight, scale, layer)).round()
    if not bool((whole.abs() <= TOP).all()) or not torch.equal(times_scale(whole, scale, layer), weight):
        return None
    return whole.to(torch.int8)


def in_file(network: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The state of a network as files hold it: whole numbers and scales where it has them, else ``dtype`` if given."""
    found: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        layer = network.get_submodule(name.rpartition(".")[0])
        whole, scale = (whole_weight(layer), scale_of(layer)) if name.endswith(WEIGHT) else (None, None)
        if whole is not None and scale is not None:
            found |= {name: whole.contiguous(), name.removesuffix(WEIGHT) + SCALE: scale}
        else:
            found[name] = tensor.to(dtype if tensor.is_floating_point() else None).contiguous()
    return found


def from_file(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network, float32 throughout where a file has whole numbers; their scales stay with the layers.

    Raises ``ValueError`` for whole numbers without a scale, for anything but a convolution, or beyond ±127, and for
    scales of another shape or format, or that are not over 0 and finite.
    """
    whole = {name: tensor for name, tensor in weights.items() if tensor.dtype == torch.int8}
    scales = {name: name.removesuffix(WEIGHT) + SCALE for name in whole}
    if not whole:
        return dict(weights)
    plain = {name: tensor for name, tensor in weights.items() if name not in whole and name not in scales.values()}
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    layers = dict(network.named_modules())
    for name, numbers in whole.items():
        layer = layers.get(name.removesuffix(WEIGHT)) if name.endswith(WEIGHT) else None
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            raise ValueError(f"the weights {name} must not be of 8 bits: only those of a convolution may be")
        if scales[name] not in weights:
            raise ValueError(f"the weights {name} are of 8 bits and need {scales[name]}, which is missing")
        scale = weights[scales[name]]
        _check(name, numbers, scale, layer)
        found[name] = times_scale(numbers, scale, layer)
        layer.weight_scale = scale
    return found


def keep_scales(network: nn.Module, source: nn.Module) -> None:
    """Give the layers of ``network``, which has the weights of ``source``, the scales of its layers."""
    layers = dict(network.named_modules())
    for name, layer in source.named_modules():
        if (scale := scale_of(layer)) is not None:
            layers[name].weight_scale = scale


def _check(name: str, whole: Tensor, scale: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    place = name.removesuffix(WEIGHT) + SCALE
    if scale.dtype != torch.float32 or scale.shape != (layer.out_channels,):
        got = f"{tuple(scale.shape)} {str(scale.dtype).removeprefix('torch.')}"
        raise ValueError(f"{place} must be of shape ({layer.out_channels},) float32, got {got}")
    if not bool((scale.isfinite() & (scale > 0)).all()):
        raise ValueError(f"{place} must hold numbers over 0 that are finite")
    if whole.ndim != layer.weight.ndim:
        raise ValueError(f"the weights {name} must be of shape {tuple(layer.weight.shape)}, got {tuple(whole.shape)}")
    if bool((whole < -TOP).any()):
        raise ValueError(f"the weights {name} must lie within ±{TOP}, got {int(whole.min())}")


def _beside(weight: Tensor, scale: Tensor, layer: nn.Module) -> Tensor:
    """``scale`` in a shape that is multiplied with ``weight``."""
    axis = output_axis(layer)
    return scale.to(weight.device).view([-1 if i == axis else 1 for i in range(weight.ndim)])
