"""What both sides know of the signal: orthonormal rows ``H`` and noisy values ``y = H x``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy

import numpy as np
import torch
from torch import Tensor

from pscx.signal.partition import Partition
from pscx.signal.transforms import GRID, BlockDCT, Box, Pull

Gain = Callable[[Tensor], Tensor | float]
"""What measurements weigh, given their noise variances, any shape: that shape, or one number for all."""

Boxed = list[tuple[Box, Tensor, Tensor, Tensor]]
LARGEST_KEPT = 1 << 22  # numbers of the largest signal whose boxes are kept between calls


class Measurements(ABC):
    """Orthonormal rows, each inside one block of a partition, with quantized values and their noise variance.

    Rows are only ever appended; they must be orthonormal to each other and to those already there, so that ``H^T`` is
    the pseudo-inverse and none is ever computed. ``values`` and ``variances`` are ``(blocks, places)`` float64, zero
    where a place is not in use. ``gains`` ``(blocks,)`` is the factor by which predicted variances have to be
    multiplied, as far as the past tells. All of it, and what comes in, lies on one device.
    """

    partition: Partition
    values: Tensor
    variances: Tensor
    gains: Tensor

    @property
    def device(self) -> torch.device:
        """Where all of it lies."""
        return self.values.device

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows so far."""

    @abstractmethod
    def append(self, block: Tensor, rows: Tensor, values: Tensor, variances: Tensor) -> None:
        """Add rows in blocks ``(r,)`` with values and noise variances ``(r,)``."""

    @abstractmethod
    def forward(self, signal: Tensor) -> Tensor:
        """``H x``: ``(n, channels, height, width)`` to ``(n, blocks, places)``, zero at places not in use."""

    @abstractmethod
    def adjoint(self, values: Tensor) -> Tensor:
        """``H^T v``: ``(n, blocks, places)`` back to signals."""

    @abstractmethod
    def corrected(self, signal: Tensor, gain: Gain, out: Tensor) -> None:
        """Writes ``x + H^T g (y - H x)`` of signals ``(n, channels, height, width)``; ``g`` is the variances' gain."""

    def bands(self) -> Iterator[tuple[slice, Measurements]]:
        """All there is in parts that do not see each other: rows of the signal, and the measurements of these alone.

        What is done to one after the other needs little memory at a time. Here all is one part.
        """
        yield slice(None), self

    @abstractmethod
    def split(self, signal: Tensor) -> Tensor:
        """The blocks of signals ``(n, channels, height, width)`` as :meth:`along` takes them: ``(n, blocks, dim)``."""

    @abstractmethod
    def along(self, blocks: Tensor, block: Tensor, rows: Tensor) -> Tensor:
        """Products ``(r,)`` of rows in blocks ``(r,)`` with one signal's ``blocks`` ``(blocks, dim)``."""

    @abstractmethod
    def signals(self, block: Tensor, rows: Tensor) -> Tensor:
        """The rows in blocks ``(r,)`` themselves, each as a signal: ``(r, channels, height, width)``."""


class DenseRows(Measurements):
    """Rows of any direction ``(r, dim)``, stored block by block: ``(blocks, rows of the fullest block, dim)``."""

    def __init__(self, partition: Partition, device: torch.device | str = "cpu") -> None:
        self.partition = partition
        self.rows = torch.zeros(partition.count, 0, partition.dim, dtype=torch.float64, device=device)
        self.values = torch.zeros(partition.count, 0, dtype=torch.float64, device=device)
        self.variances = torch.zeros(partition.count, 0, dtype=torch.float64, device=device)
        self.counts = torch.zeros(partition.count, dtype=torch.int64, device=device)
        self.gains = torch.ones(partition.count, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def append(self, block: Tensor, rows: Tensor, values: Tensor, variances: Tensor) -> None:
        place = self.counts[block] + rank_within(block)
        fullest = int(place.max()) + 1 if len(place) else 0
        grow = max(fullest - self.rows.shape[1], 0)
        pad = torch.nn.functional.pad
        self.rows = pad(self.rows, (0, 0, 0, grow))
        self.values, self.variances = pad(self.values, (0, grow)), pad(self.variances, (0, grow))
        self.rows[block, place] = rows
        self.values[block, place] = values
        self.variances[block, place] = variances
        self.counts += torch.bincount(block, minlength=len(self.counts))

    def forward(self, signal: Tensor) -> Tensor:
        return (self.rows @ self.partition.split(signal).permute(1, 2, 0)).permute(2, 0, 1)

    def corrected(self, signal: Tensor, gain: Gain, out: Tensor) -> None:
        torch.add(signal, self.adjoint((self.values - self.forward(signal)) * gain(self.variances)), out=out)

    def adjoint(self, values: Tensor) -> Tensor:
        return self.partition.join((values.transpose(0, 1) @ self.rows).transpose(0, 1))

    def split(self, signal: Tensor) -> Tensor:
        return self.partition.split(signal)

    def along(self, blocks: Tensor, block: Tensor, rows: Tensor) -> Tensor:
        return (blocks[block] * rows).sum(1)

    def signals(self, block: Tensor, rows: Tensor) -> Tensor:
        shape = (len(block), self.partition.count, self.partition.dim)
        blocks = torch.zeros(shape, dtype=torch.float64, device=self.device)
        blocks[torch.arange(len(block), device=self.device), block] = rows
        return self.partition.join(blocks)

    def complement(self, block: Tensor, vectors: Tensor) -> Tensor:
        """Remove from vectors ``(r, dim)`` in blocks ``(r,)`` all that the rows of those blocks span."""
        place = rank_within(block)
        most = int(place.max()) + 1 if len(place) else 0
        shape = (len(self.rows), most, self.partition.dim)
        left = torch.zeros(shape, dtype=torch.float64, device=self.device)
        left[block, place] = vectors
        for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
            left = left - left @ self.rows.mT @ self.rows
        return left[block, place]


class Coordinates(Measurements):
    """Some of the coefficients of a fixed orthonormal transform: a row is its number ``(r,)`` int64 in the block.

    ``H`` is a mask over the transform, so nothing is stored but ``known`` ``(blocks, dim)``, and all arithmetic is
    exact (:mod:`pscx.signal.transforms`).
    """

    def __init__(self, transform: BlockDCT) -> None:
        self.transform, self.partition = transform, transform.partition
        shape = (self.partition.count, self.partition.dim)
        device = transform.axes.device
        self.taken = torch.zeros(self.partition.dim, dtype=torch.bool, device=device)  # rows of any block
        self.known = untouched(shape, torch.bool, device)
        self.values, self.variances = (untouched(shape, torch.float64, device) for _ in range(2))
        self.gains = torch.ones(self.partition.count, dtype=torch.float64, device=device)
        self.kept: dict[int, Boxed] = {}  # by the first row of blocks of a band
        self.first, self.small = 0, self.values.numel() <= LARGEST_KEPT

    def __len__(self) -> int:
        return int(self.known.sum())

    def append(self, block: Tensor, rows: Tensor, values: Tensor, variances: Tensor) -> None:
        self.taken[rows] = True
        self.kept.clear()
        self.known[block, rows] = True
        self.values[block, rows] = values
        self.variances[block, rows] = variances

    def forward(self, signal: Tensor) -> Tensor:
        return self.split(signal).mul_(self.known)

    def bands(self) -> Iterator[tuple[slice, Coordinates]]:
        across, block = self.partition.grid[1], self.transform.block
        for first, last in self.transform.bands():
            blocks = slice(first * across, last * across)
            part = copy(self)
            part.first = first
            part.transform = self.transform.band(first, last)
            part.partition = part.transform.partition
            part.known, part.values, part.variances, part.gains = (
                tensor[blocks] for tensor in (self.known, self.values, self.variances, self.gains)
            )
            yield slice(first * block, last * block), part

    def adjoint(self, values: Tensor) -> Tensor:
        return self.transform.inverse(values * self.known)

    def corrected(self, signal: Tensor, gain: Gain, out: Tensor) -> None:
        boxes = self.in_boxes()
        weights = [mask * gain(variances) for _, _, mask, variances in boxes]  # once for all signals
        pulls = [Pull(box, values, weight) for (box, values, *_), weight in zip(boxes, weights, strict=True)]
        for one, found in zip(signal, out, strict=True):
            self.transform.pull(one, pulls, found)

    def in_boxes(self) -> Boxed:
        """All that is known, as :class:`Pull` takes it: values, whether there is one (1 or 0), and variances.

        A sampler asks for the same again in each step, so it is kept until a row is added, unless it is large.
        """
        if (kept := self.kept.get(self.first)) is not None:
            return kept
        made = self.transform.boxed
        boxed = [
            (box, made(self.values, box) * GRID, made(self.known, box).double(), made(self.variances, box))
            for box in self.boxes()
        ]
        if self.small:
            self.kept[self.first] = boxed
        return boxed

    def boxes(self) -> list[Box]:
        """Boxes of frequencies in which all rows lie so far. A device is not asked: there it is all of them."""
        channels, block = self.partition.channels, self.transform.block
        if self.device.type != "cpu":
            return [Box(slice(0, channels), block, block)]
        taken = self.taken.view(channels, block, block)
        reach = [[int(line.nonzero().max()) + 1 for line in (t.any(1), t.any(0))] if t.any() else [] for t in taken]
        return [Box(slice(axis, axis + 1), *sides) for axis, sides in enumerate(reach) if sides]

    def split(self, signal: Tensor) -> Tensor:
        return self.transform.forward(signal)

    def along(self, blocks: Tensor, block: Tensor, rows: Tensor) -> Tensor:
        return blocks[block, rows]

    def signals(self, block: Tensor, rows: Tensor) -> Tensor:
        shape = (len(block), self.partition.count, self.partition.dim)
        coefficients = torch.zeros(shape, dtype=torch.float64, device=self.device)
        coefficients[torch.arange(len(block), device=self.device), block, rows] = 1.0
        return self.transform.inverse(coefficients)


def untouched(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take no memory before they are written, where the system gives it page by page."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = np.bool_ if dtype == torch.bool else np.float64
    return torch.from_numpy(np.zeros(shape, kind))  # torch's own zeros are written


def rank_within(block: Tensor) -> Tensor:
    """How many earlier entries hold the same number: ``[4, 7, 4, 4]`` gives ``[0, 0, 1, 2]``."""
    order = torch.argsort(block, stable=True)
    ordered = block[order]
    start = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(block)
    rank[order] = torch.arange(len(block), device=block.device) - start
    return rank
