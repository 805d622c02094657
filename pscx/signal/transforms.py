"""An orthonormal block transform whose every sum is exact, whatever the order in which a machine adds.

Values are whole multiples of ``2^-20`` and at most 127 in magnitude, so a block's norm stays below ``2^13``; matrix
entries are multiples of ``2^-20``. A partial sum of a row's products is at most the row's norm, 1, times the block's:
with 40 bits behind the point and 13 before it, a float64 holds it exactly, in any order. What is rounded between the
passes makes the transform orthonormal to about 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, pi, sqrt

import torch
from einops import rearrange
from torch import Tensor

from pscx.signal.partition import Partition

GRID = 2.0**20
LARGEST = 127.0
LARGEST_BLOCK = 1 << 12  # numbers: 127 times its square root stays below 2^13
FINE, FINE_LARGEST = 2.0**31, 2.0**10 - 1
BAND = 1 << 20  # numbers of a band of blocks, unless one row of blocks has more


def whole(values: Tensor) -> Tensor:
    """The nearest multiples of 2^-20 within ±127, in units of 2^-20; ties to even. ``values`` are float64."""
    return to_grid(values * GRID)


def to_grid(values: Tensor) -> Tensor:
    """:func:`whole` of ``values`` that are in units of 2^-20, in place."""
    return values.clamp_(-LARGEST * GRID, LARGEST * GRID).round_()


def fine(values: Tensor) -> Tensor:
    """The nearest multiples of 2^-31 within ±1023: variances. A sum of up to 4096 of them is exact in any order."""
    return to_fine(values * FINE).mul_(1 / FINE)


def to_fine(values: Tensor) -> Tensor:
    """:func:`fine` of ``values`` that are in units of 2^-31, in these units and in place."""
    return values.clamp_(-FINE_LARGEST * FINE, FINE_LARGEST * FINE).round_()


@lru_cache
def dct_matrix(size: int) -> Tensor:
    """DCT-II rows (Ahmed, Natarajan and Rao 1974), orthonormal, ``(size, size)`` float64, to 20 bits."""
    rows = [[cos(pi * (n + 0.5) * k / size) * sqrt(2 / size) for n in range(size)] for k in range(size)]
    rows[0] = [sqrt(1 / size)] * size
    return whole(torch.tensor(rows, dtype=torch.float64)) / GRID


@dataclass(frozen=True)
class Box:
    """Coefficients of some channel ``axes``: of the first ``rows`` and ``columns`` of frequencies."""

    axes: slice
    rows: int
    columns: int


@dataclass(frozen=True)
class Pull:
    """Towards which values, and how much, coefficients in a box are to be moved; as :meth:`BlockDCT.boxed` gives.

    Values are in units of 2^-20: numbers of the signal times :data:`GRID`.
    """

    box: Box
    value: Tensor
    weight: Tensor


class BlockDCT:
    """Two-dimensional DCT of every block of a partition and every channel axis.

    Args:
        partition: blocks of at most 4096 numbers, all channels counted.
        axes: orthonormal channel axes ``(channels, channels)``, one a row, or none for the channels themselves. Where
            they lie, all that is transformed has to lie.

    Raises:
        ValueError: the partition has no blocks, or larger ones, or the axes are not orthonormal to 2^-16.
    """

    def __init__(self, partition: Partition, axes: Tensor | None = None) -> None:
        if partition.block is None or partition.dim > LARGEST_BLOCK:
            raise ValueError(f"a block must have at most {LARGEST_BLOCK} numbers, got {partition.dim}")
        self.partition, self.block = partition, partition.block
        eye = torch.eye(partition.channels, dtype=torch.float64, device=None if axes is None else axes.device)
        self.axes = eye if axes is None else whole(axes) / GRID
        self.basis = dct_matrix(partition.block).to(eye.device)
        if float((self.axes @ self.axes.mT - eye).abs().max()) > 2.0**-16:
            raise ValueError("channel axes must be orthonormal")

    def forward(self, signal: Tensor) -> Tensor:
        """``(n, channels, height, width)`` to coefficients ``(n, blocks, dim)``, ordered axis, row, column.

        Raises ``ValueError`` for another shape than the partition's.
        """
        shape = (self.partition.channels, self.partition.height, self.partition.width)
        if signal.shape[1:] != shape:
            raise ValueError(f"signals must be (n, {', '.join(map(str, shape))}), got {tuple(signal.shape)}")
        across = self.partition.grid[1]
        shape = (len(signal), self.partition.count, self.partition.dim)
        coefficients = torch.empty(shape, dtype=torch.float64, device=self.axes.device)
        for one, found in zip(signal, coefficients, strict=True):
            for first, last in self.bands():
                part = one[:, first * self.block : last * self.block]
                self._forward(part, found[first * across : last * across])
        return coefficients

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The transpose of :meth:`forward`: coefficients back to signals. Raises ``ValueError`` for another shape."""
        across, shape = self.partition.grid[1], (self.partition.channels, self.partition.height, self.partition.width)
        if coefficients.shape[1:] != (self.partition.count, self.partition.dim):
            wanted = f"(n, {self.partition.count}, {self.partition.dim})"
            raise ValueError(f"coefficients must be {wanted}, got {tuple(coefficients.shape)}")
        signal = torch.empty(len(coefficients), *shape, dtype=torch.float64, device=self.axes.device)
        for one, found in zip(coefficients, signal, strict=True):
            for first, last in self.bands():
                part = one[first * across : last * across]
                self._inverse(part, found[:, first * self.block : last * self.block])
        return signal

    def boxed(self, coefficients: Tensor, box: Box) -> Tensor:
        """Those ``(blocks, dim)`` that lie in a box, as :meth:`pull` has them: axis, block row, row, block, column."""
        down, across = self.partition.grid
        found = coefficients.view(down, across, len(self.axes), self.block, self.block)
        found = found[:, :, box.axes, : box.rows, : box.columns]
        return found.permute(2, 0, 3, 1, 4).contiguous()

    def pull(self, signal: Tensor, pulls: list[Pull], out: Tensor) -> None:
        """One signal ``(channels, height, width)`` plus the inverse of ``weight (value - forward(signal))``.

        Weights are zero outside of the boxes. The bits are those of :meth:`forward` and :meth:`inverse`; where it is
        known to be zero, nothing is computed.
        """
        across, block = self.partition.grid[1], self.block
        spread = (self.axes @ whole(signal.double()).flatten(1)).round_()
        found = torch.zeros_like(spread)
        for pull in pulls:
            box, rows, columns = pull.box, self.basis[: pull.box.rows], self.basis[: pull.box.columns]
            x = (rows @ spread[box.axes].view(-1, block, across * block)).round_()
            x = (x.view(-1, block) @ columns.T).round_().view(pull.value.shape)
            x = to_grid(torch.sub(pull.value, x, out=x).mul_(pull.weight))
            x = (x.view(-1, box.columns) @ columns).round_().view(-1, box.rows, across * block)
            torch.matmul(rows.T, x, out=found[box.axes].view(-1, block, across * block))
        found = torch.mm(self.axes.T, found.round_(), out=spread).round_().view(out.shape)
        torch.add(signal, found, alpha=1 / GRID, out=out)  # the product is exact, so it may be fused with the sum

    def bands(self) -> Iterator[tuple[int, int]]:
        """First and last (not included) row of blocks of each band: what is worked on at once, blocks being apart."""
        down, across = self.partition.grid
        step = max(1, BAND // (across * self.partition.dim))
        for first in range(0, down, step):
            yield first, min(first + step, down)

    def band(self, first: int, last: int) -> BlockDCT:
        """The transform of some rows of blocks."""
        part = copy(self)
        part.partition = replace(self.partition, height=(last - first) * self.block)
        return part

    def _forward(self, signal: Tensor, found: Tensor) -> None:
        """One signal ``(channels, height, width)``, of which ``found`` takes the coefficients ``(blocks, dim)``."""
        channels, block, across = len(self.axes), self.block, self.partition.grid[1]
        x = (self.axes @ whole(signal.double()).flatten(1)).round_()
        x = (self.basis @ x.view(channels, -1, block, across * block)).round_()
        x = (x.view(channels, -1, block, across, block) @ self.basis.T).round_()
        torch.mul(rearrange(x, "c y p x q -> y x c p q"), 1 / GRID, out=found.view(-1, across, channels, block, block))

    def _inverse(self, coefficients: Tensor, found: Tensor) -> None:
        """One signal's coefficients ``(blocks, dim)``, of which ``found`` takes the signal."""
        channels, block, across = len(self.axes), self.block, self.partition.grid[1]
        x = whole(coefficients).view(-1, across, channels, block, block)
        x = (rearrange(x, "y x c p q -> c y p x q") @ self.basis).round_()
        x = (self.basis.T @ x.view(channels, -1, block, across * block)).round_()
        x = (self.axes.T @ x.view(channels, -1)).round_()
        torch.mul(x.view(found.shape), 1 / GRID, out=found)
