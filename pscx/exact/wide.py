"""Convolutions and linear layers with weights of 16 bits, for networks that were never meant to have fewer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscx.exact.backends import plain_convolutions
from pscx.exact.convolution import (
    TINY,
    border_of,
    byte_stride,
    check_layer,
    largest,
    operation,
    splits,
)
from pscx.exact.integer import STACKED, Packed, path_on
from pscx.exact.integers import number
from pscx.exact.kept import Kept
from pscx.exact.planes import Ending, added, byte_planes, digits
from pscx.exact.rounding import recorded, refuse_gradient

FORM = digits(16, rectified=False)
"""How activations and weights are written: as ``256 high + low``, both in [-128, 127], within 32639."""


class WideProducts(nn.Module):
    """Sums of products of activations and weights that both have 16 bits, without the product of their low bytes.

    With ``a = 256 a1 + a0`` and ``w = 256 w1 + w0``, what is summed is ``256 (256 a1 w1 + a0 w1 + a1 w0)``; ``a0 w0``,
    which is left out, is at most 2^-16 of the largest product. Each of the three sums is one of
    :class:`pscx.exact.ExactConvolution`, of bytes or of the same bytes in float32, with input channels in groups that
    keep partial sums below 2^24. They are added in one order: the groups of ``w0``, then those of ``w1``.

    Weights are kept as integers of 16 bits, half the memory of float32; on the path on bytes, as those too.

    Args:
        weight: ``(out, in, ...)``.
        bias: ``(out,)``, or none.
        stride: of the convolution; none where it has no form on bytes.
        product: sums of float32 products of activations and weights, as the layer makes them.

    Raises:
        ValueError: one input channel alone exceeds the bound.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int] | None,
        product: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        whole, scale = wide_weights(weight.detach())
        self.stride, self.product = stride, product
        self.splits = [splits(limits(part)) for part in weight_digits(whole)]
        self.packs: Kept[list[list[Packed]]] = Kept()
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("weight", whole)
        self.register_buffer("scale", 256 * scale)
        self.register_buffer("bias", torch.zeros(len(scale)) if bias is None else bias.detach().float())

    def forward(self, planes: Tensor, unit: Tensor) -> tuple[Tensor, torch.Size]:
        """``(batch, places, out)`` of planes ``(2 * batch, in, height, width)``, and the shape of one plane's sums.

        ``unit`` ``(batch, 1 or places, 1)`` is that of the activations.
        """
        batch, total = len(planes) // 2, None
        ending = Ending(unit, self.bias, scale=self.scale)
        paths = self.bytes_of if self.stride and path_on(planes.device) == "integer" else self.floats_of
        (high_part, high), (low_part, low) = zip(self.splits, paths(), strict=True)
        for part, multiply in zip(low_part, low, strict=True):
            total = added(total, flat(multiply(planes[:batch, part]), batch), None)
        for part, multiply in zip(high_part, high, strict=True):
            calls = [planes] if planes[:batch].numel() <= STACKED else planes.split(batch)
            sums = [multiply(some[:, part]) for some in calls]
            parts = [one for some in sums for one in flat(some, batch)]
            total = added(total, parts, ending if part is high_part[-1] else None)
        assert total is not None
        return total, sums[0].shape

    def bytes_of(self) -> list[list[Callable[[Tensor], Tensor]]]:
        """What multiplies bytes by the high and by the low digits of the weights, group by group."""
        return [list(packs) for packs in self.packs.of(self.weight, self.packed)]

    def packed(self) -> list[list[Packed]]:
        """The digits of the weights, packed."""
        assert self.stride
        stride, pairs = self.stride, zip(self.splits, weight_digits(self.weight), strict=True)
        return [[Packed(image(whole[:, part]), stride, FORM.zero) for part in parts] for parts, whole in pairs]

    def floats_of(self) -> list[list[Callable[[Tensor], Tensor]]]:
        """:meth:`bytes_of`, in float32; digits are made of the integers in each call, which saves their memory."""

        def multiplying(part: slice, place: int) -> Callable[[Tensor], Tensor]:
            def multiply(plane: Tensor) -> Tensor:
                weight = weight_digits(self.weight[:, part])[place].float()
                with plain_convolutions():
                    return self.product(plane.float().sub_(FORM.zero), weight)

            return multiply

        return [[multiplying(part, place) for part in parts] for place, parts in enumerate(self.splits)]


class ExactWideConvolution(nn.Module):
    """``layer`` with weights and activations of 16 bits (:class:`WideProducts`): one result on every machine.

    A sample is divided by its largest magnitude over 32639 and rounded; the weights of an output channel likewise,
    once. The scales are those of :class:`pscx.exact.ExactConvolution`.

    Args:
        layer: a ``Conv2d`` without channel groups, zero padding.

    Raises:
        ValueError: the layer is of another kind, or one input channel alone exceeds the bound.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        check_layer(layer, 8, 16)
        self.border = border_of(layer)
        self.products = WideProducts(layer.weight, layer.bias, byte_stride(layer), operation(layer, bordered=True))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(batch, channels, height, width)`` float32; a sample's result does not see the others."""
        refuse_gradient(recorded(x))
        x = x.permute(0, 2, 3, 1).contiguous()
        most = largest(x)
        unit = most / number(FORM.top, most)
        planes = byte_planes(x, unit.reciprocal(), FORM, self.border)
        found: Tensor
        found, (_, channels, height, width) = self.products(planes, unit)
        return found.view(-1, height, width, channels).permute(0, 3, 1, 2)


class ExactWideLinear(nn.Module):
    """``layer`` with weights and activations of 16 bits (:class:`WideProducts`): one result on every machine.

    Each token, all numbers along the last dimension, is divided by its own largest magnitude over 32639 and rounded:
    tokens differ in size by much more than channels do. So no result depends on other tokens, or on the batch.

    Args:
        layer: the layer that this one stands for.

    Raises:
        ValueError: one input alone exceeds the bound.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.products = WideProducts(layer.weight[..., None], layer.bias, (1, 1), along_channels)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: ``(batch, ..., features)`` float32."""
        refuse_gradient(recorded(x))
        tokens = x.reshape(1, -1, 1, x.shape[-1])
        most = torch.maximum(tokens.amax(3), -tokens.amin(3)).clamp_min_(TINY)
        unit = most / number(FORM.top, most)
        found: Tensor
        found, _ = self.products(byte_planes(tokens, unit.reciprocal(), FORM), unit)
        return found.view(*x.shape[:-1], -1)


def wide_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(out, ...)`` as int16 numbers within 32639, and the scale ``(out,)`` float32 of each output."""
    flat = weight.float().flatten(1)
    most = torch.maximum(flat.amax(1), -flat.amin(1)).clamp_min_(TINY)
    scale = most / number(FORM.top, most)
    whole = (flat / scale[:, None]).round_().clamp_(-FORM.top, FORM.top)
    return whole.to(torch.int16).view(weight.shape), scale


def limits(weight: Tensor) -> Tensor:
    """:func:`pscx.exact.convolution.bounds` of digits ``(out, in, ...)`` of weights, ``(rows, in)`` float32.

    What is below 2^24 is exact, and a sum that is not does not seem so.
    """
    taps = weight.flatten(2).float()
    size, total = (one.squeeze(2) if taps.shape[2] == 1 else one.sum(2) for one in (taps.abs(), taps))
    positive = (size + total) / 2
    return torch.cat([size * FORM.largest, positive * 255, (size - positive) * 255])


def weight_digits(whole: Tensor) -> tuple[Tensor, Tensor]:
    """``high`` and ``low`` of int16 numbers ``256 high + low`` within 32639, both in [-128, 127]; int16 as well."""
    high = (whole + 128).bitwise_right_shift_(8)
    return high, whole - high.bitwise_left_shift(8)


def flat(sums: Tensor, batch: int) -> tuple[Tensor, ...]:
    """``(batch, places, out)`` of each plane."""
    return sums.permute(0, 2, 3, 1).reshape(len(sums) // batch, batch, -1, sums.shape[1]).unbind()


def image(weight: Tensor) -> Tensor:
    """The weights of a convolution, or those ``(out, in, 1)`` of a linear layer as one of 1x1."""
    return weight if weight.ndim == 4 else weight[..., None]


def along_channels(x: Tensor, weight: Tensor) -> Tensor:
    """``(batch, in, places, 1)`` times ``(out, in, 1)``, as a product of matrices: ``(batch, out, places, 1)``."""
    return functional.linear(x.permute(0, 2, 3, 1), weight[..., 0]).permute(0, 3, 1, 2)
