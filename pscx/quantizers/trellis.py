"""Two grids that take turns: a quantizer whose cells depend on the symbols before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pscx.quantizers.base import QUANTIZERS, Quantizer
from pscx.quantizers.machine import TRANSITIONS, Machine
from pscx.quantizers.path_search import SPACING, PathSearch, TwoGrids
from pscx.quantizers.steps import given, half_alphabet, rounded_step
from pscx.quantizers.turns import TOGETHER, CellsInTurn
from pscx.signal.distributions import Array, Integers, check_degrees

LONGEST_PATH = 64  # measurements of a lane
NOISE = (0.105, 0.065, 0.095)  # squared steps, of the prediction, of the points beside it and of all others
NARROWEST = 1e-30  # scale in spacings
SMALLEST = 1e-300  # squared scale
LANES_AT_ONCE = 4096
MANY_LANES = 512  # from so many on, a decoder computes probabilities turn by turn


@QUANTIZERS.register("trellis")
class Trellis(Quantizer):
    """Dependent quantization: trellis-coded quantization with a grid that holds zero in every state.

    Marcellin and Fischer (1990); in this form Schwarz, Nguyen, Marpe and Wiegand (2019).

    Points lie ``0.625 step`` apart, the middle one on the prediction. Each measurement is on one of two grids: the even
    points, or the odd points and zero. Symbols number the points of a grid. A machine of few states chooses the grid
    from the parities of the symbols before. The encoder finds the path through its states with the least
    ``D + weight R``, among the two nearest points of each grid and parity: ``D`` is the squared error in steps, ``R``
    the bits of the cell under Student's t of the predicted scale. So a measurement costs as many bits as on a grid of
    twice the spacing, and can still use the points of both. Only the coder ``posterior`` knows the grid of a
    measurement; with the others a symbol costs a little more.

    The weight of bits leaves a point where the mean of its cell is, so the value ``y`` that it stands for lies further
    out: such that a posterior mean of a measurement ``y`` with noise variance ``v`` is the point. To first order
    (Tweedie's formula) that is ``y = point - v d/dy log p(point)``, ``p`` the density that ``R`` is of; it moves no
    point by more than ``0.625 step``.

    A group is a whole segment. Row ``r`` is step ``r // lanes`` of lane ``r % lanes``, with as few lanes as leave at
    most 64 steps; each lane begins in state 0.

    Args:
        step: width of the cells of a uniform quantizer with about the same noise, in signal units, in (0, 1000) after
            it was rounded to bfloat16 (``parameter`` is the rounded number).
        weight: squared steps that a bit is worth, in [0, 1].
        states: states of the trellis, 4 or 8.
        degrees: degrees of freedom of Student's t, even, 4 to 64; or 0 for a Gaussian.
        bits: each grid has ``2^bits - 1`` points; 2 to 24.
    """

    references = ("marcellin1990trellis", "schwarz2019hybrid")

    parameter_name = "step"
    exact = True
    whole = True

    def __init__(
        self, step: float = 0.05, weight: float = 0.12, states: int = 8, degrees: int = 4, bits: int = 14
    ) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"quantizer.weight must lie in [0, 1], got {weight}")
        if states not in TRANSITIONS:
            raise ValueError(f"quantizer.states must be one of {sorted(TRANSITIONS)}, got {states}")
        check_degrees(degrees, "quantizer.degrees")
        self.parameter = self.resolution = self.step = rounded_step(step)
        self.weight, self.states, self.degrees, self.bits = weight, states, degrees, bits
        self.spacing, self.two = SPACING * self.step, TwoGrids(SPACING * self.step, half_alphabet(bits))
        self.alphabet = self.two.alphabet
        self.reach = (2 * self.two.half - 1) * self.spacing  # on either grid there is a point at that distance
        self.machine = Machine.of(states)
        self._search = PathSearch(self.two, self.machine, weight, degrees)

    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        if value.isnan().any():
            raise ValueError("values to quantize must be numbers, got NaN")
        target = ((value - mean) / self.spacing).clamp(-2 * self.alphabet, 2 * self.alphabet).numpy()
        spread = (scale / self.spacing).clamp_min(NARROWEST).numpy()
        symbols = np.zeros(len(target), np.int64)
        lanes = self.lanes(len(target))
        for first in range(0, lanes, LANES_AT_ONCE):
            lane = np.arange(first, min(first + LANES_AT_ONCE, lanes))
            rows = np.arange(0, len(target), lanes)[:, None] + lane  # (steps, lanes)
            there = rows < len(target)
            part = rows[there]
            symbols[part] = self._search.cheapest(target[part], spread[part], there)
        return torch.from_numpy(symbols)

    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        number = self._numbers(symbol)
        point = number * self.spacing
        spread = (scale.square() * (self.degrees - 2 if self.degrees else 1)).clamp_min(SMALLEST)
        slope = (self.degrees + 1) * point / (spread + point.square() if self.degrees else spread)
        outward = self._noise(number) * slope
        return mean + (point + outward.clamp(-self.spacing, self.spacing))

    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return self._noise(self._numbers(symbol))

    def cells(self, symbol: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        symbols, grids = symbol.numpy(), self.grids(symbol)
        low, high = self.two.edges(symbols, [self.two.points(symbols + shift, grids) for shift in (-1, 0, 1)])
        return torch.from_numpy(low), torch.from_numpy(high)

    def cells_in_turn(self, mean: Tensor, symbols: Tensor | None = None) -> TrellisPath:
        return TrellisPath(self, len(mean)) if symbols is None else KnownTrellisPath(self, symbols)

    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        """That of a cell of the even grid, for coders that do not ask which grid a measurement is on."""
        return mean + torch.from_numpy(self.two.offset(symbol.numpy(), np.zeros(len(symbol), np.int64)))

    def with_parameter(self, parameter: float | None) -> Trellis:
        return Trellis(given(parameter, "trellis"), self.weight, self.states, self.degrees, self.bits)

    def lanes(self, rows: int) -> int:
        """Number of paths for the measurements of a segment."""
        return max(-(-rows // LONGEST_PATH), 1)

    def grids(self, symbol: Tensor) -> Integers:
        """The grid that each measurement of a segment is on, ``(n,)``: 0 the even points, 1 the odd ones and zero."""
        lanes = self.lanes(len(symbol))
        parities = np.zeros((-(-len(symbol) // lanes), lanes), np.int64)
        parities.ravel()[: len(symbol)] = self.two.parity(symbol.numpy())
        return self.machine.grids(parities).ravel()[: len(symbol)]

    def _numbers(self, symbol: Tensor) -> Tensor:
        """:meth:`TwoGrids.points` of all symbols of a segment."""
        return torch.from_numpy(self.two.points(symbol.numpy(), self.grids(symbol)))

    def _noise(self, number: Tensor) -> Tensor:
        """Noise variances of points, which are given in spacings."""
        square = torch.tensor(NOISE, dtype=torch.float64) * (self.step * self.step)
        return square[number.abs().clamp_max(2).long()]


class TrellisPath(CellsInTurn):
    """The cells on a path through a trellis, whose grids depend on the symbols before."""

    def __init__(self, quantizer: Trellis, rows: int) -> None:
        self._quantizer, self._lanes = quantizer, quantizer.lanes(rows)
        self._state = np.zeros(self._lanes, np.int64)
        self._grids = np.zeros(rows, np.int64)

    def lower(self, rows: Integers, symbols: Integers) -> Array:
        return self._quantizer.two.offset(symbols, self._grids[rows])

    def turns(self) -> Iterator[Integers]:
        for first in range(0, len(self._grids), self._lanes):
            yield np.arange(first, min(first + self._lanes, len(self._grids)))

    def turn(self, rows: Integers) -> Integers:
        return rows // self._lanes

    def take(self, rows: Integers, symbols: Integers) -> None:
        machine = self._quantizer.machine
        self._state = machine.following[self._state[: len(rows)], self._quantizer.two.parity(symbols)]
        next_rows = self._grids[rows[-1] + 1 :][: self._lanes]
        next_rows[:] = machine.grid[self._state[: len(next_rows)]]

    def edges(self, symbols: Integers) -> Array | None:
        if self._lanes >= MANY_LANES:
            return None
        return np.stack([self._quantizer.two.offset(symbols, np.full(len(symbols), grid)) for grid in (0, 1)])

    def kinds(self, rows: Integers) -> Integers:
        return self._grids[rows]


class KnownTrellisPath(TrellisPath):
    """A path of which an encoder knows all symbols: many places of it are taken at once, which is 20 times as fast."""

    def __init__(self, quantizer: Trellis, symbols: Tensor) -> None:
        super().__init__(quantizer, len(symbols))
        self._grids = quantizer.grids(symbols)

    def turns(self) -> Iterator[Integers]:
        count = max(TOGETHER // self._lanes, 1) * self._lanes
        for first in range(0, len(self._grids), count):
            yield np.arange(first, min(first + count, len(self._grids)))

    def take(self, rows: Integers, symbols: Integers) -> None:
        pass

    def edges(self, symbols: Integers) -> Array | None:
        return None
