"""Convolutions whose sums are exact: small integers, below 2^24 whatever the order of adding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pscx.exact.backends import plain_convolutions
from pscx.exact.integer import STACKED, Packed, path_on
from pscx.exact.kept import Kept
from pscx.exact.planes import Digits, Ending, added, byte_planes, digits
from pscx.exact.rounding import recorded, refuse_gradient, rounded
from pscx.networks.whole_weights import output_axis, scale_of, whole_weight

LIMIT = 1 << 24
"""Integers up to this are exact in float32, and so is every sum that stays within it."""

WEIGHT_BITS, ACTIVATION_BITS = 8, 16
"""Bytes for weights, and two of them for activations with a sign: those of one cost 0.4 to 3 % of squared error."""
BYTE = 8
"""Weights of so many bits can be multiplied as bytes."""


class ExactConvolution(nn.Module):
    """``layer`` with integer weights and, in each call, integer activations: one result on every machine.

    A sample is divided by its largest magnitude over ``top`` and rounded; the weights of an output channel likewise,
    over 127, once. A layer that was loaded from integers keeps those. Activations are written as bytes
    (:mod:`pscx.exact.planes`): two where they have a sign, one where they have none. The products of each of these
    planes with the weights are summed by oneDNN's convolution of bytes where the processor's is exact
    (:mod:`pscx.exact.integer`), else by torch's in float32. No partial sum of them can reach 2^24, because input
    channels are split into groups for which the largest digit times the L1 norm of the weights stays below it. So both
    give the same sums. Weighting and adding planes, adding groups, scaling and the bias are single IEEE operations on
    each element, in one order.

    Of activations that are not negative a partial sum lies between those of all negative and of all positive weights,
    so the larger of these two takes the place of the L1 norm, and about half as many groups will do.

    Weights of more than 8 bits are multiplied in float32 everywhere, and activations are not written as bytes: ``top``
    is ``2^(activation_bits - 1) - 1``, which groups of channels have to allow.

    Args:
        layer: a ``Conv2d`` or ``ConvTranspose2d`` without channel groups, zero padding.
        weight_bits: of a weight, with its sign; 2 to 16.
        activation_bits: of an activation, with its sign; 2 to 16. With weights of at most 8 bits, ``top`` is 32639 for
            16, and numbers that are not negative have at most 8 bits, without a sign.
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
        check_layer(layer, weight_bits, activation_bits)
        self.transposed, self.rectified = isinstance(layer, nn.ConvTranspose2d), rectified
        self.digits = digits(activation_bits, rectified) if weight_bits <= BYTE else None
        self.border = border_of(layer) if self.digits else (0, 0)
        self.convolve, self.stride = operation(layer, bordered=self.digits is not None), byte_stride(layer)
        top = self.digits.top if self.digits else (1 << (activation_bits - 1)) - 1
        whole, scale = integers_of(layer, weight_bits)
        self.splits = splits(bounds(whole.movedim(output_axis(layer), 0).flatten(2), rectified, top, self.digits))
        self.packs: Kept[list[Packed]] = Kept()
        self.top: Tensor
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("top", torch.tensor(float(top)))
        self.register_buffer("weight", whole.float().contiguous(memory_format=torch.channels_last))
        self.register_buffer("scale", scale.float())
        self.register_buffer("bias", torch.zeros(len(scale)) if layer.bias is None else layer.bias.detach().float())

    def forward(self, x: Tensor, rectify: bool = False, shortcut: Tensor | None = None) -> Tensor:
        """As the layer: ``(batch, channels, height, width)`` float32; a sample's result does not see the others.

        A ReLU and the addition of ``shortcut``, in the shape of the result, follow where they are asked for: in the
        same pass over memory, which changes no bit.
        """
        refuse_gradient(recorded(x))
        x = x.permute(0, 2, 3, 1).contiguous()
        unit = largest(x, rectified=self.rectified) / self.top
        planes = self.planes(x, unit.reciprocal())
        batch, total, size = x.shape[0], None, torch.Size()
        beside = None if shortcut is None or self.transposed else self.flat(shortcut, batch)[0]
        ending = Ending(unit * self.scale, self.bias, rectify, beside)
        for part, sums in zip(self.splits, self.sums(planes, batch), strict=True):
            size = sums[0].shape
            apart = [one for some in sums for one in self.flat(some, batch)]
            total = added(total, apart, ending if part is self.splits[-1] else None)
        assert total is not None
        made = self.image(total, size)
        return made if shortcut is None or beside is not None else made.add_(shortcut)

    def planes(self, x: Tensor, perunit: Tensor) -> Tensor:
        """Integers next to ``x * perunit``, as bytes or, with wider weights, as they are."""
        if self.digits is None:
            return rounded(x * perunit[..., None]).permute(0, 3, 1, 2)
        return byte_planes(x, perunit, self.digits, self.border)

    def sums(self, planes: Tensor, batch: int) -> Iterator[list[Tensor]]:
        """Of each group of channels: sums of its products, the highest planes first, in one tensor or one for each.

        Of a transposed layer, the path on bytes gives each tap's outputs as channels of their own, tap after tap.
        """
        if self.digits and self.stride and path_on(planes.device) == "integer":
            calls = self.digits.count if planes[:batch].numel() > STACKED else 1
            for part, packed in zip(self.splits, self.packs.of(self.weight, self.packed), strict=True):
                group = planes if len(self.splits) == 1 else planes[:, part]
                yield [packed(some) for some in group.chunk(calls)]
        else:
            zero = self.digits.zero if self.digits else 0
            for part in self.splits:
                yield [self.convolved(plane.float() - zero, part) for plane in planes[:, part].split(batch)]

    def convolved(self, whole: Tensor, part: slice) -> Tensor:
        """Sums of products of ``whole``, float32 integers of the input channels ``part``: exact integers.

        Where the layer writes bytes, ``whole`` has its border.
        """
        with plain_convolutions():
            return self.convolve(whole, self.weight[part] if self.transposed else self.weight[:, part])

    def packed(self) -> list[Packed]:
        """The weights of each group as bytes."""
        assert self.digits
        assert self.stride
        weight = self.weight
        if self.transposed:  # (in, out, rows, columns) to (rows * columns * out, in, 1, 1)
            weight = weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
        return [Packed(weight[:, part], self.stride, self.digits.zero) for part in self.splits]

    def flat(self, sums: Tensor, batch: int) -> tuple[Tensor, ...]:
        """``(batch, places, outputs)`` of each plane; each tap of a place is one of its own where they are apart."""
        count, outputs = sums.shape[0] // batch, self.scale.shape[0]
        return sums.permute(0, 2, 3, 1).reshape(count, batch, -1, outputs).unbind()

    def image(self, flat: Tensor, size: torch.Size) -> Tensor:
        """``(batch, outputs, height, width)``, channels last, of a flat tensor whose sums had the shape ``size``."""
        _, channels, height, width = size
        if channels == flat.shape[2]:
            return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)
        rows, columns = self.weight.shape[2:]
        apart = flat.view(-1, height, width, rows, columns, flat.shape[2]).transpose(2, 3)
        return apart.reshape(-1, height * rows, width * columns, flat.shape[2]).permute(0, 3, 1, 2)


def check_layer(layer: nn.Conv2d | nn.ConvTranspose2d, weight_bits: int, activation_bits: int) -> None:
    """Raise ``ValueError`` where :class:`ExactConvolution` does."""
    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not 2 <= bits <= 16:
            raise ValueError(f"exact.{name} must lie in 2..16, got {bits}")
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError(f"exact: {layer} must have one group of channels and zero padding given in numbers")


def border_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int]:
    """Rows and columns of zeros on each side of what ``layer`` is given; a transposed one has none."""
    if isinstance(layer, nn.ConvTranspose2d):
        return 0, 0
    assert not isinstance(layer.padding, str)  # as was checked
    rows, columns = layer.padding
    return rows, columns


def operation(layer: nn.Conv2d | nn.ConvTranspose2d, bordered: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """What ``layer`` does with an input and weights; with ``bordered``, with an input that has its border."""
    geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    if isinstance(layer, nn.ConvTranspose2d):
        return partial(nn.functional.conv_transpose2d, output_padding=layer.output_padding, **geometry)
    return partial(nn.functional.conv2d, **(geometry | {"padding": 0} if bordered else geometry))


def byte_stride(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int] | None:
    """Stride of ``layer`` as a convolution of bytes; none for a layer that is not made so.

    A transposed one whose taps do not overlap has the outputs of a convolution of one tap, with more channels.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        geometry = (layer.stride, layer.padding, layer.output_padding, layer.dilation)
        return (1, 1) if geometry == (layer.kernel_size, (0, 0), (0, 0), (1, 1)) else None
    rows, columns = layer.stride
    return (rows, columns) if layer.dilation == (1, 1) else None


def integers_of(layer: nn.Conv2d | nn.ConvTranspose2d, bits: int) -> tuple[Tensor, Tensor]:
    """Integer weights and the scale ``(out,)`` of each output: those that it was loaded from, or rounded ones."""
    known, scale = whole_weight(layer), scale_of(layer)
    if known is not None and scale is not None and bits >= BYTE:
        return known.double(), scale
    return whole_weights(layer.weight.detach().double(), output_axis(layer), bits)


TINY = 2.0**-100


def largest(x: Tensor, rectified: bool = False) -> Tensor:
    """Largest magnitude of each sample of ``(batch, ...)``, over 0, as ``(batch, 1, 1)``.

    With ``rectified`` no number is negative.
    """
    flat = x.reshape(x.shape[0], -1)
    most = flat.amax(1) if rectified else torch.maximum(flat.amax(1), flat.amin(1).neg_())
    return most.clamp_min_(TINY).view(-1, 1, 1)


def whole_weights(weight: Tensor, output: int, bits: int) -> tuple[Tensor, Tensor]:
    """Weights rounded to integers of ``bits`` bits, and the scale ``(out,)`` of each slice along ``output``."""
    others = [axis for axis in range(weight.ndim) if axis != output]
    largest = weight.abs().amax(others, keepdim=True).clamp_min(TINY)
    scale = (largest / ((1 << (bits - 1)) - 1)).float().double()
    return (weight / scale).round(), scale.flatten()


def bounds(weight: Tensor, rectified: bool, top: int, form: Digits | None) -> Tensor:
    """How far weights ``(out, in, taps)`` take partial sums, for each input channel: ``(rows, in)``.

    A row for each output is its L1 norm times the largest activation, or digit. Of numbers that are not negative a sum
    lies between those over all negative and over all positive weights, which have a row each instead. Bytes are not
    negative before their zero point is taken away, so theirs are there as well.
    """
    positive, negative = weight.clamp_min(0).sum(2), (-weight).clamp_min(0).sum(2)
    if rectified:
        return torch.cat([positive, negative]) * top
    if form is None:
        return (positive + negative) * top
    return torch.cat([(positive + negative) * form.largest, positive * 255, negative * 255])


def splits(sizes: Tensor) -> list[slice]:
    """Consecutive input channels in groups whose sums of ``sizes`` stay below 2^24 in every row.

    ``sizes`` ``(rows, in)`` are those of :func:`bounds`. Groups are made as equal as the fewest of them can be.
    """
    if float(sizes.max()) >= LIMIT:
        raise ValueError(f"exact: sums over one channel's weights alone reach {float(sizes.max()):g}, over 2^24")
    channels = sizes.shape[1]
    for count in range(1, channels + 1):
        edges = [channels * i // count for i in range(count + 1)]
        parts = [slice(first, last) for first, last in pairwise(edges)]
        if all(float(sizes[:, part].sum(1).max()) < LIMIT for part in parts):
            return parts
    raise AssertionError("single channels fit, as was checked")
