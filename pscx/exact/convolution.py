"""Convolutions whose sums are exact: small integers in float32, below 2^24 whatever the order of adding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pscx.exact.backends import plain_convolutions
from pscx.exact.rounding import rounded

LIMIT = 1 << 24
"""Integers up to this are exact in float32, and so is every sum that stays within it."""

WEIGHT_BITS, ACTIVATION_BITS = 9, 10
"""The fewest with which denoised photographs err by less than 1 % more; each bit less halves the channel groups."""


class ExactConvolution(nn.Module):
    """``layer`` with integer weights and, in each call, integer activations: one result on every machine.

    A sample is divided by its largest magnitude over ``2^(activation_bits - 1) - 1`` and rounded; the weights of an
    output channel likewise, once. Products are summed by torch's convolution in float32: no partial sum of them can
    reach 2^24, because input channels are split into groups for which the largest activation times the L1 norm of
    the weights stays below it. Scaling, adding groups and the bias are single IEEE operations on each element.

    Of activations that are not negative a partial sum lies between those of all negative and of all positive weights,
    so the larger of these two takes the place of the L1 norm, and about half as many groups will do.

    Args:
        layer: a ``Conv2d`` or ``ConvTranspose2d`` without channel groups, zero padding.
        weight_bits: of a weight, with its sign; 2 to 16.
        activation_bits: of an activation, with its sign; 2 to 16.
        rectified: the layer is only ever given numbers that are not negative.

    Raises:
        ValueError: a number is out of range, the layer is of another kind, or one input channel alone exceeds the
            bound.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.ConvTranspose2d,
        weight_bits: int = WEIGHT_BITS,
        activation_bits: int = ACTIVATION_BITS,
        rectified: bool = False,
    ) -> None:
        super().__init__()
        for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
            if not 2 <= bits <= 16:
                raise ValueError(f"exact.{name} must lie in 2..16, got {bits}")
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(f"exact: {layer} must have one group of channels and zero padding given in numbers")
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        self.convolve: Callable[[Tensor, Tensor], Tensor] = partial(nn.functional.conv2d, **geometry)
        if isinstance(layer, nn.ConvTranspose2d):
            geometry["output_padding"] = layer.output_padding
            self.convolve = partial(nn.functional.conv_transpose2d, **geometry)
        top = float((1 << (activation_bits - 1)) - 1)
        output = 1 if self.transposed else 0
        whole, scale = whole_weights(layer.weight.detach().double(), output, weight_bits)
        self.splits = splits(norms(whole.movedim(output, 0).flatten(2), rectified), top)
        self.rectified = rectified
        self.top: Tensor
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("top", torch.tensor(top))
        self.register_buffer("weight", whole.float().contiguous(memory_format=torch.channels_last))
        self.register_buffer("scale", scale.float()[:, None, None])
        bias = torch.zeros(len(scale)) if layer.bias is None else layer.bias.detach().float()
        self.register_buffer("bias", bias[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(batch, channels, height, width)`` float32; a sample's result does not see the others."""
        most = largest(x, rectified=self.rectified)
        unit = most / self.top
        perunit = unit.reciprocal()
        first, *others = self.splits
        total = self.convolved(rounded(x[:, first] * perunit), first)
        for part in others:
            total += self.convolved(rounded(x[:, part] * perunit), part)
        return total.mul_(unit * self.scale).add_(self.bias)

    def convolved(self, whole: Tensor, part: slice) -> Tensor:
        """Sums of products of ``whole``, integers within ``top`` of the input channels ``part``: exact integers."""
        weight = self.weight[part] if self.transposed else self.weight[:, part]
        with plain_convolutions():
            return self.convolve(whole, weight)


TINY = 2.0**-100


def largest(x: Tensor, rectified: bool = False) -> Tensor:
    """Largest magnitude of each sample of ``(batch, channels, height, width)``, over 0, as ``(batch, 1, 1, 1)``.

    With ``rectified`` no number is negative.
    """
    flat = x.movedim(1, 3).flatten(1) if x.is_contiguous(memory_format=torch.channels_last) else x.flatten(1)
    most = flat.amax(1) if rectified else torch.maximum(flat.amax(1), -flat.amin(1))
    return most.clamp_min_(TINY)[:, None, None, None]


def whole_weights(weight: Tensor, output: int, bits: int) -> tuple[Tensor, Tensor]:
    """Weights rounded to integers of ``bits`` bits, and the scale ``(out,)`` of each slice along ``output``."""
    others = [axis for axis in range(weight.ndim) if axis != output]
    largest = weight.abs().amax(others, keepdim=True).clamp_min(TINY)
    scale = (largest / ((1 << (bits - 1)) - 1)).float().double()
    return (weight / scale).round(), scale.flatten()


def norms(weight: Tensor, rectified: bool) -> Tensor:
    """How far weights ``(out, in, taps)`` take sums of activations within 1, for each input channel: ``(rows, in)``.

    A row for each output is its L1 norm; of activations that are not negative two rows, for the positive weights and
    for the negative.
    """
    if rectified:
        return torch.cat([weight.clamp_min(0).sum(2), (-weight).clamp_min(0).sum(2)])
    return weight.abs().sum(2)


def splits(sizes: Tensor, top: float) -> list[slice]:
    """Consecutive input channels in groups whose sums ``top * size`` stay below 2^24 for every row of ``sizes``.

    ``sizes`` ``(rows, in)`` are those of :func:`norms`. Groups are made as equal as the fewest of them can be.
    """
    if float(sizes.max()) * top >= LIMIT:
        raise ValueError(f"exact: one channel's weights times {top:g} reach {float(sizes.max()) * top:g}, over 2^24")
    channels = sizes.shape[1]
    for count in range(1, channels + 1):
        edges = [channels * i // count for i in range(count + 1)]
        parts = [slice(first, last) for first, last in pairwise(edges)]
        if all(float(sizes[:, part].sum(1).max()) * top < LIMIT for part in parts):
            return parts
    raise AssertionError("single channels fit, as was checked")
