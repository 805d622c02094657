"""The two grids of a trellis quantizer, and its encoder's search for the cheapest path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pscx.quantizers.machine import Machine
from pscx.signal.distributions import Array, Booleans, Integers, cell_bits

SPACING = 0.625  # of the points of both grids together, in steps


@dataclass(frozen=True)
class TwoGrids:
    """Points of the even and of the odd grid, ``spacing`` apart: symbols ``0 .. 2 half`` number those of a grid."""

    spacing: float
    half: int

    @property
    def alphabet(self) -> int:
        """Symbols of a grid."""
        return 2 * self.half + 1

    def parity(self, symbols: Integers) -> Integers:
        """What the machine takes in: whether the number of a symbol, counted from the prediction's, is odd."""
        return (symbols - self.half) & 1

    def offset(self, symbols: Integers, grids: Integers) -> Array:
        """Where a symbol's cell begins: halfway between its point and the one below, from the prediction on.

        Minus infinity for symbol 0, infinity for symbol ``alphabet``.
        """
        return self._edge(symbols, self.points(symbols - 1, grids), self.points(symbols, grids))

    def edges(self, symbols: Integers, points: list[Array]) -> tuple[Array, Array]:
        """:meth:`offset` of symbols and of those after them; ``points`` are those before, their own and those after."""
        before, own, after = points
        return self._edge(symbols, before, own), self._edge(symbols + 1, own, after)

    def _edge(self, symbols: Integers, before: Array, own: Array) -> Array:
        """:meth:`offset` of symbols, of which the points, and those of the symbols before, are known."""
        edge: Array = (before + own) / 2 * self.spacing
        edge[symbols <= 0], edge[symbols >= self.alphabet] = -np.inf, np.inf
        return edge

    def points(self, symbols: Integers, grids: Integers | int) -> Array:
        """What symbols stand for, in spacings from the prediction."""
        level = (symbols - self.half).astype(np.float64)
        return 2 * level - grids * np.sign(level)


@dataclass(frozen=True)
class PathSearch:
    """Finds the symbols of least ``D + weight R``: ``D`` the squared error in steps, ``R`` bits under Student's t."""

    grids: TwoGrids
    machine: Machine
    weight: float
    degrees: int

    def cheapest(self, target: Array, spread: Array, there: Booleans) -> Integers:
        """Symbols of the cheapest paths through the measurements that are ``there`` ``(steps, lanes)``, in that order.

        ``target``, less the prediction, and ``spread`` in spacings, ``(n,)``.
        """
        candidates = np.zeros((2, 2, len(target)), np.int64)
        costs = np.zeros((2, 2, *there.shape))
        for grid, parity in ((0, 0), (0, 1), (1, 0), (1, 1)):
            candidates[grid, parity], costs[grid, parity][there] = self._nearest(target, spread, grid, parity)
        grids, parities = (part[there] for part in self.machine.cheapest(np.moveaxis(costs, 2, 0)))
        return candidates[grids, parities, np.arange(len(target))]

    def _nearest(self, target: Array, spread: Array, grid: int, parity: int) -> tuple[Integers, Array]:
        """Of the symbols of a grid and parity the cheaper of the nearest and its neighbour towards the prediction.

        Returns them, and what they cost, in squared steps.
        """
        outermost = self.grids.half - (self.grids.half + parity) % 2
        number = 2 * np.rint((np.abs(target) + grid - 2 * parity) / 4).astype(np.int64) + parity
        number = np.clip(number, parity, outermost)
        sign = np.where(target < 0, -1, 1)
        symbols = self.grids.half + sign * number
        costs = self._cost(symbols, target, spread, grid)
        again = np.flatnonzero(number > parity + 1)  # the others have no such neighbour
        nearer = symbols[again] - 2 * sign[again]
        other = self._cost(nearer, target[again], spread[again], grid)
        cheaper = other < costs[again]
        symbols[again[cheaper]], costs[again[cheaper]] = nearer[cheaper], other[cheaper]
        return symbols, costs

    def _cost(self, symbols: Integers, target: Array, spread: Array, grid: int) -> Array:
        """``D + weight R`` in squared steps, of symbols of one grid, ``R`` at most 40 bits."""
        points = [self.grids.points(symbols + shift, grid) for shift in (-1, 0, 1)]
        error: Array = (SPACING * (target - points[1])) ** 2
        if self.weight == 0:
            return error
        low, high = (edge / self.grids.spacing / spread for edge in self.grids.edges(symbols, points))
        return error + self.weight * cell_bits(low, high, self.degrees)
