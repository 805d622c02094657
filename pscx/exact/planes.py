"""Activations as planes of bytes, and sums over planes as one result, in few passes over memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 1 << 16
"""Numbers a thread takes at a time, which its cache holds from one operation to the next."""
NEAREST = 1.5 * 2.0**23
"""float32 numbers around it are one apart: to add it rounds to an integer, which the low bits then hold."""


@dataclass(frozen=True)
class Digits:
    """How an activation is written: ``top`` units at most, as one byte or two, ``zero`` in each standing for 0.

    Two bytes are balanced digits of base 256, ``256 * high + low`` with both in [-128, 127], and so reach 32639.
    """

    top: int
    count: int
    zero: int

    @property
    def largest(self) -> int:
        """Magnitude of the largest digit."""
        if self.count == 2:
            return 128
        return self.top


def digits(bits: int, rectified: bool) -> Digits:
    """Those of activations of 2 to 16 bits with a sign, or of at most 8 without where none is negative."""
    if rectified:
        return Digits((1 << min(bits, 8)) - 1, 1, 0)
    top = (1 << (bits - 1)) - 1
    return Digits(top, 1, 128) if bits <= 8 else Digits(min(top, 127 * 257), 2, 128)


def byte_planes(x: Tensor, perunit: Tensor, form: Digits) -> Tensor:
    """Digits of ``x * perunit``, rounded to integers with ties to even: ``(count * batch, channels, height, width)``.

    Args:
        x: ``(batch, channels, height, width)`` float32.
        perunit: ``(batch, 1, 1, 1)``; no product is over ``form.top`` in magnitude.
        form: what is written; the high digits of all samples come first.

    Returns:
        uint8, channels last.
    """
    batch, channels, height, width = x.shape
    flat, perunit = x.permute(0, 2, 3, 1).reshape(batch, 1, -1), perunit.view(batch, 1, 1)
    planes = torch.empty(form.count, batch, flat.shape[2], dtype=torch.uint8, device=x.device)
    start = NEAREST + form.zero * (257 if form.count == 2 else 1)
    for rows, columns in pieces(flat.transpose(1, 2)):
        bits = torch.mul(flat[rows, 0, columns], perunit[rows, 0]).add_(start).view(torch.int32)
        planes[-1, rows, columns] = bits  # the lowest byte
        if form.count == 2:
            planes[0, rows, columns] = bits.bitwise_right_shift_(8)
    return planes.view(-1, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Ending:
    """What follows a sum: times ``factor`` ``(batch, 1, channels)``, plus ``bias`` ``(channels,)``."""

    factor: Tensor
    bias: Tensor


def added(total: Tensor | None, planes: Sequence[Tensor], ending: Ending | None) -> Tensor:
    """``total`` plus sums of one plane, or ``256 * high + low`` of two, and then their ending.

    All are ``(batch, places, channels)``; the answer lies in the memory of the first plane. The product by 256 is
    exact, so whether it is fused with the addition does not matter; the rest are single IEEE operations on each element.
    """
    high, low = planes[0], planes[1] if len(planes) > 1 else None
    for rows, places in pieces(high):
        part = high[rows, places]
        if low is not None:
            torch.add(low[rows, places], part, alpha=256, out=part)
        if total is not None:
            part.add_(total[rows, places])
        if ending is not None:
            part.mul_(ending.factor[rows]).add_(ending.bias)
    return high


def pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and places of ``(batch, places, channels)`` that are taken at a time: some whole samples, or part of one.

    On a device that is no CPU, all.
    """
    batch, places, channels = x.shape
    if x.device.type != "cpu":
        yield slice(batch), slice(places)
        return
    size = PIECE * torch.get_num_threads()
    samples, step = max(1, size // (places * channels)), min(places, max(1, size // channels))
    for first in range(0, batch, samples):
        for start in range(0, places, step):
            yield slice(first, first + samples), slice(start, start + step)
