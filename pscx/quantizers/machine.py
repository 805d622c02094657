"""The state machine of dependent quantization, and the cheapest path through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pscx.signal.distributions import Array, Integers

TRANSITIONS = {
    4: ((0, 2), (2, 0), (1, 3), (3, 1)),
    8: ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5)),
}
ODD_GRID = {4: (0, 0, 1, 1), 8: (0, 1, 0, 1, 0, 1, 0, 1)}


@dataclass(frozen=True)
class Machine:
    """The state machine of dependent quantization: ``following[state, parity]``, and ``grid[state]``, 0 or 1."""

    following: Integers
    grid: Integers

    @classmethod
    def of(cls, states: int) -> Machine:
        """That of the VVC standard with 4 states, or one with 8, whose paths stay apart for longer."""
        return cls(np.array(TRANSITIONS[states]), np.array(ODD_GRID[states]))

    def grids(self, parities: Integers) -> Integers:
        """The grids on which measurements with these parities ``(steps, lanes)`` lie, each lane from state 0 on."""
        state = np.zeros(parities.shape[1], np.int64)
        found = np.zeros_like(parities)
        for step, parity in enumerate(parities):
            found[step] = self.grid[state]
            state = self.following[state, parity]
        return found

    def cheapest(self, costs: Array) -> tuple[Integers, Integers]:
        """Viterbi's algorithm (1967): the path of least cost in each lane, as grids and parities ``(steps, lanes)``.

        ``costs`` ``(steps, grid, parity, lanes)`` are those of the cheapest symbol of this grid and parity.
        """
        steps, _, _, lanes = costs.shape
        count = len(self.grid)
        source = np.array([[s for s in range(count) if after in self.following[s]] for after in range(count)])
        parity = np.array([[int(self.following[s, 1] == after) for s in pair] for after, pair in enumerate(source)])
        branches = costs[:, self.grid[source], parity]  # (steps, state after, which of its two sources, lanes)
        total = np.full((count, lanes), np.inf)
        total[0] = 0
        second = np.zeros((steps, count, lanes), np.bool_)
        for step in range(steps):
            one, other = np.moveaxis(total[source] + branches[step], 1, 0)
            second[step] = other < one
            total = np.minimum(one, other)
        state, lane = total.argmin(0), np.arange(lanes)
        grids, parities = np.zeros((2, steps, lanes), np.int64)
        for step in range(steps - 1, -1, -1):
            way = second[step, state, lane].astype(np.int64)
            parities[step] = parity[state, way]
            state = source[state, way]
            grids[step] = self.grid[state]
        return grids, parities
