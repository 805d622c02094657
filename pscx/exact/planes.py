"""Activations as planes of bytes, and sums over planes as one result, in few passes over memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 1 << 17
"""Numbers a thread takes at a time, which its cache holds from one operation to the next."""
NEAREST = 1.5 * 2.0**23
"""float32 numbers around it are one apart: to add it rounds to an integer, which the low bits then hold."""


@dataclass(frozen=True)
class Digits:
    """How an activation is written: ``top`` units at most, as one byte or two, each with ``zero`` added.

    Two bytes are balanced digits of base 256, ``256 * high + low`` with both in [-128, 127], and so reach 32639.
    """

    top: int
    count: int
    zero: int

    @property
    def largest(self) -> int:
        """Magnitude of the largest digit."""
        return self.zero if self.count == 2 else self.top


def digits(bits: int, rectified: bool) -> Digits:
    """Those of activations of 2 to 16 bits with a sign, or of at most 8 without where none is negative."""
    if rectified:
        return Digits((1 << min(bits, 8)) - 1, 1, 0)
    top = (1 << (bits - 1)) - 1
    return Digits(top, 1, 128) if bits <= 8 else Digits(min(top, 127 * 257), 2, 128)


def byte_planes(x: Tensor, perunit: Tensor, form: Digits, border: tuple[int, int] = (0, 0)) -> Tensor:
    """Digits of ``x * perunit``, which is rounded to integers with ties to even.

    Args:
        x: ``(batch, height, width, channels)`` float32, contiguous.
        perunit: ``(batch, 1, 1)``; no product is over ``form.top`` in magnitude.
        form: what is written.
        border: rows above and below, and columns on either side, of zeros.

    Returns:
        ``(count * batch, channels, height + 2 rows, width + 2 columns)`` uint8, channels last; the high digits of all
        samples come first.
    """
    batch, height, width, channels = x.shape
    rows, columns = border
    shape = (form.count, batch, height + 2 * rows, (width + 2 * columns) * channels)
    if border == (0, 0):
        inside = whole = torch.empty(shape, dtype=torch.uint8, device=x.device)
    else:
        whole = torch.full(shape, form.zero, dtype=torch.uint8, device=x.device)
        inside = whole[:, :, rows : rows + height, columns * channels : (columns + width) * channels]
    start = NEAREST + form.zero * (257 if form.count == 2 else 1)
    for part, factor, *places in pieces(x.view(batch, height, -1), perunit, *inside.unbind()):
        bits = torch.mul(part, factor).add_(start).view(torch.int32)
        places[-1].copy_(bits)  # the lowest byte of each
        if form.count == 2:
            places[0].copy_(bits.bitwise_right_shift_(8))
    return whole.view(-1, shape[2], width + 2 * columns, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Ending:
    """What follows a sum: times ``factor`` ``(batch, 1 or places, 1 or channels)``, plus ``bias`` ``(channels,)``.

    A product by ``scale`` ``(channels,)`` comes between them if it is given. Then comes a ReLU where ``rectify`` says
    so, and ``shortcut`` ``(batch, places, channels)`` is added if given.
    """

    factor: Tensor
    bias: Tensor
    rectify: bool = False
    shortcut: Tensor | None = None
    scale: Tensor | None = None


def added(total: Tensor | None, planes: Sequence[Tensor], ending: Ending | None) -> Tensor:
    """``total`` plus sums of one plane, or ``256 * high + low`` of two, and then their ending.

    All are ``(batch, places, channels)``; the answer lies in the memory of the first plane. The product by 256 is
    exact, so it may be fused with the addition; the rest are single IEEE operations on each element.
    """
    shortcut = None if ending is None else ending.shortcut
    given = [*planes[1:], total, None if ending is None else ending.factor, shortcut]
    for part, *rest in pieces(planes[0], *(tensor for tensor in given if tensor is not None)):
        others = iter(rest)
        if len(planes) == 2:
            torch.add(next(others), part, alpha=256, out=part)
        if total is not None:
            part.add_(next(others))
        if ending is not None:
            part.mul_(next(others))
            if ending.scale is not None:
                part.mul_(ending.scale)
            part.add_(ending.bias)
            if ending.rectify:
                part.relu_()
            if shortcut is not None:
                part.add_(next(others))
    return planes[0]


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of tensors ``(batch, rows, numbers)``, some whole samples or some rows of one at a time.

    The first says how large; others may have one row for all. On a device that is no CPU, all at once.
    """
    batch, rows, numbers = tensors[0].shape
    size = PIECE * torch.get_num_threads()
    if batch * rows * numbers <= size or tensors[0].device.type != "cpu":
        yield tensors
        return
    samples, step = max(1, size // (rows * numbers)), min(rows, max(1, size // numbers))
    for first in range(0, batch, samples):
        some = [tensor[first : first + samples] for tensor in tensors]
        for row in range(0, rows, step):
            yield tuple(one if one.shape[1] == 1 else one[:, row : row + step] for one in some)
