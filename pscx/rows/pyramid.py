"""The block means of an image, coarse to fine, each predicted by interpolation between those coded before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from pscx.exact import logarithm
from pscx.rows.base import Predictions, Proposal
from pscx.rows.log_linear import check_weights, log_linear

Watch: TypeAlias = Callable[[bool, Tensor, Tensor], None]

FIRST = ("prior", "pyramid")
FEATURES = 7
NEAREST, ALL = 4, 12  # neighbours of which the mean is taken; those of which the spread is looked at
EDGE, CENTRE = (
    ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -2), (-1, 2), (1, -2), (1, 2), (-2, -1), (-2, 1), (2, -1), (2, 1)),
    ((-1, -1), (1, 1), (-1, 1), (1, -1), (-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (3, -1), (-3, 1), (3, 1)),
)
FLATTEST = 0.1  # squared resolutions that are added to a spread before its logarithm is taken
GAP = 1.0  # squared resolutions that are added to a squared difference before its reciprocal is taken
ROUNDING = 1 / 12  # squared resolutions of a variance that the quantizer adds
SMALLEST = 1e-6  # of what a logarithm is taken of
COARSEST = 3  # levels above this one are alike
FINEST = 16
FAR = 4  # every which row and column of blocks has the coarse means

PHOTOGRAPHS = [
    *(0.6333, 0.4022, 0.1324, -2.994, 0.5143, 0.1974, 3.1978),
    *(0.4363, 0.4382, 0.3753, -1.4143, 0.2927, 0.1421, 0.5773),
]
"""Weights for photographs (docs/rows.md says of which): seven for the first channel axis, seven for the others.

A stream says ``null`` for them, so they never change after a release.
"""


@dataclass(frozen=True)
class Pyramid:
    """Block means ("DC coefficients") in an order in which later ones lie between earlier ones, and their predictions.

    The first is that of the block in the corner. Then, for a spacing ``h`` that halves until it is 1, come the blocks
    in the middle of four that are known (:data:`CENTRE`, at diagonal distance ``h``), then those between them
    (:data:`EDGE`, at distance ``h``). Of each, the first channel axis comes before the others. Lossless coders of
    images have long used this order: Endoh and Yamazaki 1986 call it hierarchical interpolation.

    A coefficient is predicted from its four nearest neighbours, two opposite pairs with means ``m`` and differences
    ``d``: ``(m1 w1 + m2 w2) / (w1 + w2)`` with ``w = 1 / (d^2 + r^2)``, ``r`` the quantizer's resolution, so that the
    mean follows an edge; at borders by the mean of those that are there. The logarithm of its variance is linear in
    seven features: logarithms of the mean squared distance of the four, and of twelve neighbours, from the prediction;
    on the first axis the logarithm of the spread of the other axes' four neighbours, on the others that of the squared
    error of the first axis's prediction here; the logarithm of the number of neighbours that are there, at most four;
    whether it lies in the middle of four; the level ``log2 h``, at most 3; and 1.

    All of it is single IEEE operations on each number, in a fixed order, on the CPU.

    Args:
        grid: blocks down and across.
        means: of the coefficient of the first block on each channel axis, ``(axes,)`` float64 on the CPU.
        first: its variances, likewise.
        resolution: the quantizer's, in units of the signal.
        weights: fourteen numbers: those of the features for the first axis, then for the others.
    """

    grid: tuple[int, int]
    means: Tensor
    first: Tensor
    resolution: float
    weights: list[float]

    @property
    def axes(self) -> int:
        """How many channel axes there are."""
        return len(self.means)

    def proposal(self, dim: int, device: torch.device) -> Proposal:
        """The rows of all block means, with this object's predictions; ``dim`` is the numbers in a block."""
        parts, groups = [], []
        for y, x, *_ in self.places():
            for axes in self.turns():
                parts += [
                    torch.stack([y * self.grid[1] + x, torch.full_like(y, axis * dim // self.axes)]) for axis in axes
                ]
                groups.append(len(y) * len(axes))
        block, rows = torch.cat(parts, 1).to(device)
        variance = torch.ones(len(block), dtype=torch.float64, device=device)
        return Proposal(block, rows, variance, groups, self.predictions)

    def coarse(self, block: Tensor) -> Tensor:
        """Whether the means of blocks ``(r,)`` are coarse: those of every fourth row and column, ``(r,)`` bool."""
        return (block // self.grid[1] % FAR == 0) & (block % self.grid[1] % FAR == 0)

    def turns(self) -> list[range]:
        """The channel axes that are coded together."""
        return [range(1), range(1, self.axes)] if self.axes > 1 else [range(1)]

    def places(self) -> Iterator[tuple[Tensor, Tensor, int, bool]]:
        """Groups of blocks: their rows and columns in the grid, the spacing, and whether they are in the middle."""
        corner = torch.zeros(1, dtype=torch.int64)
        yield corner, corner, 0, False
        spacing = 1 << (max(self.grid) - 1).bit_length()
        down, across = (torch.arange(size) for size in self.grid)
        while spacing > 1:
            spacing //= 2
            on_y, on_x = (down % spacing == 0)[:, None], across % spacing == 0
            odd_y, odd_x = (down // spacing % 2 == 1)[:, None], across // spacing % 2 == 1
            for middle, chosen in ((True, odd_y & odd_x), (False, odd_y ^ odd_x)):
                y, x = torch.nonzero(on_y & on_x & chosen, as_tuple=True)
                if len(y):
                    yield y, x, spacing, middle

    def predictions(self, watch: Watch | None = None) -> Predictions:
        """Yield mean and variance of each group, ``(r,)`` float64, and receive its values.

        ``watch`` is called with whether a group is of the first axis, its features ``(6, axes, r)`` and its means
        ``(axes, r)``.
        """
        planes = torch.zeros(self.axes, *self.grid, dtype=torch.float64)
        known = torch.zeros(self.grid, dtype=torch.bool)
        for y, x, spacing, middle in self.places():
            around = self.around(planes, known, y, x, spacing, middle) if spacing else None
            error = torch.zeros(len(y), dtype=torch.float64)
            for axes in self.turns():
                if around is None:
                    mean, variance = (own[axes.start : axes.stop, None] for own in (self.means, self.first))
                else:
                    features = self.features(around, axes, error)
                    variance, mean = self.variance(features, axes), around.mean[axes.start : axes.stop]
                    if watch is not None:
                        watch(axes.start == 0, features, mean)
                values = (yield mean.flatten(), variance.flatten()).view(len(axes), -1)
                planes[axes.start : axes.stop, y, x] = values
                error = (values - mean)[0]
            known[y, x] = True

    def around(self, planes: Tensor, known: Tensor, y: Tensor, x: Tensor, spacing: int, middle: bool) -> Around:
        """What the neighbours of a group of blocks say of all its axes: it codes no neighbour of its own blocks."""
        near = Neighbours.of(planes, known, y, x, spacing, middle)
        mean = near.interpolated(GAP * self.resolution * self.resolution)
        spreads = near.spread(mean, NEAREST), near.spread(mean, ALL)
        return Around(mean, *spreads, near.count(NEAREST), float(middle), float(level(spacing)))

    def features(self, around: Around, axes: range, error: Tensor) -> Tensor:
        """The features but for the last, ``(6, axes, r)`` float32; ``error`` ``(r,)`` is that of the first axis."""
        chosen = slice(axes.start, axes.stop)
        beside = sum(around.narrow[1:], torch.zeros_like(error)) if axes.start == 0 else error * error
        own, wide = around.narrow[chosen], around.wide[chosen]
        count, like = logarithm(around.count.float()), own.float()
        place = [torch.full_like(like, around.middle), torch.full_like(like, around.level)]
        logs = [self.logarithm(own), self.logarithm(wide), self.logarithm(beside).expand_as(like)]
        return torch.stack([*logs, count.expand_as(like), *place])

    def variance(self, features: Tensor, axes: range) -> Tensor:
        """Variances ``(axes, r)`` float64 by the weights."""
        of_axes = self.weights[:FEATURES] if axes.start == 0 else self.weights[FEATURES:]
        variance = log_linear(features, of_axes).double()
        return variance + ROUNDING * self.resolution * self.resolution

    def logarithm(self, spread: Tensor) -> Tensor:
        """That of a variance which the quantizer's noise is added to, float32."""
        return logarithm((spread + (FLATTEST * self.resolution * self.resolution + SMALLEST)).float())


@dataclass(frozen=True)
class Around:
    """What is known of ``r`` blocks from their neighbours, on all axes.

    ``mean`` are the predictions; ``narrow`` and ``wide`` the mean squared distances of the four and the twelve
    neighbours from them, ``(axes, r)`` each; ``count`` ``(r,)`` how many of the four are there. ``middle`` is 1 where
    the blocks lie in the middle of four, else 0.
    """

    mean: Tensor
    narrow: Tensor
    wide: Tensor
    count: Tensor
    middle: float
    level: float


@dataclass(frozen=True)
class Neighbours:
    """Values ``(12, axes, r)`` of the neighbours of ``r`` blocks, 0 where ``there`` ``(12, r)`` float64 is 0."""

    values: Tensor
    there: Tensor

    @classmethod
    def of(cls, planes: Tensor, known: Tensor, y: Tensor, x: Tensor, spacing: int, middle: bool) -> Neighbours:
        """Those of the blocks in rows ``y`` and columns ``x`` of ``planes`` ``(axes, down, across)``."""
        down, across = known.shape
        values, there = [], []
        for dy, dx in CENTRE if middle else EDGE:
            row, column = y + dy * spacing, x + dx * spacing
            inside = (row >= 0) & (row < down) & (column >= 0) & (column < across)
            row, column = row.clamp(0, down - 1), column.clamp(0, across - 1)
            there.append((inside & known[row, column]).double())
            values.append(planes[:, row, column] * there[-1])
        return cls(torch.stack(values), torch.stack(there))

    def count(self, among: int) -> Tensor:
        """How many of the first ``among`` are there, ``(r,)``, at least 1."""
        return self.there[:among].sum(0).clamp_min(1)

    def interpolated(self, gap: float) -> Tensor:
        """Predictions ``(axes, r)`` from the two pairs of nearest neighbours; see :class:`Pyramid`."""
        (a, b, c, d), every = self.values[:NEAREST], self.count(NEAREST) == NEAREST
        across, down = (1 / ((low - high).square() + gap + SMALLEST) for low, high in ((a, b), (c, d)))
        along = ((a + b) * across + (c + d) * down) / (2 * (across + down))
        return torch.where(every, along, (((a + b) + c) + d) / self.count(NEAREST))

    def spread(self, mean: Tensor, among: int) -> Tensor:
        """Mean squared distance ``(axes, r)`` of the first ``among`` from ``mean``."""
        total = torch.zeros_like(mean)
        for value, there in zip(self.values[:among], self.there[:among], strict=True):
            total += (value - mean).square() * there
        return total / self.count(among)


def level(spacing: int) -> int:
    """``log2`` of a spacing, at most :data:`COARSEST`."""
    return min(spacing.bit_length() - 1, COARSEST)


def check_first(first: str, weights: list[float] | None, coarse: float) -> None:
    """Raises ``ValueError`` where ``first`` is no way of beginning, or an option of the pyramid is out of range.

    The weights are fourteen within ±1000, ``coarse`` lies in [1, 16].
    """
    if first not in FIRST:
        raise ValueError(f"rows.first must be one of {', '.join(FIRST)}, got {first!r}")
    if not 1 <= coarse <= FINEST:
        raise ValueError(f"rows.coarse must lie in [1, {FINEST}], got {coarse}")
    if weights is not None:
        check_weights("rows.pyramid", weights, 2 * FEATURES)
