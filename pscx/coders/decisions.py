"""The yes-or-no decisions that a symbol of an ordered alphabet is coded as, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from pscx.coders.ranges import on_grid
from pscx.quantizers.turns import CellsInTurn
from pscx.signal.distributions import FARTHEST, Array, Booleans, Integers, Tail, mass, sides_of

Decide = Callable[[Integers, Integers, Array], Booleans]
Cut = Callable[[Integers, Integers], Array]

NEAR = 7  # symbols on either side of the middle one that are set apart first
NOTHING = 1e-250  # a mass below this is not divided by
ROWS = 1 << 10  # of which a table is made at once: they stay in the cache
ENDED, FAR = -1, -2  # in place of a decision of a table: one symbol is left; the decision is not in the table


def descend(cut: Cut, alphabet: int, rows: Integers, decide: Decide) -> Integers:
    """Cut ``[0, alphabet)`` in two until one symbol is left in each of the numbered rows, where :func:`between` says.

    ``cut(rows, symbols)`` gives the masses on both sides of the symbols' lower edges in the numbered rows.
    """
    low, high = np.zeros(len(rows), np.int64), np.full(len(rows), alphabet, np.int64)
    left = np.flatnonzero(high - low > 1)
    at_low, at_high = cut(rows[left], low[left]), cut(rows[left], high[left])
    while len(left):
        middle = between(low[left], high[left], alphabet)
        at_middle = cut(rows[left], middle)
        p = chance(mass(at_middle, at_high), mass(at_low, at_high))
        upper = decide(rows[left], middle, p)
        low[left], high[left] = np.where(upper, middle, low[left]), np.where(upper, high[left], middle)
        at_low, at_high = np.where(upper, at_middle, at_low), np.where(upper, at_high, at_middle)
        again = high[left] - low[left] > 1
        left, at_low, at_high = left[again], at_low[:, again], at_high[:, again]
    return low


def between(low: Integers, high: Integers, alphabet: int) -> Integers:
    """Where to cut ``[low, high)``: first the ``NEAR`` symbols on either side of the middle one are set apart.

    What lies beyond them is cut at twice the distance from the middle until its end is found, what has two ends is
    halved. So a symbol near the middle takes at most six decisions, whatever the alphabet.
    """
    centre = alphabet // 2
    inner, outer = centre - NEAR, centre + NEAR + 1
    middle = (low + high) // 2
    middle = np.where((high == alphabet) & (low > centre), 2 * low - centre, middle)
    middle = np.where((low == 0) & (high <= inner), 2 * high - centre, middle)
    middle = np.where((low == 0) & (high == outer), inner, middle)
    middle = np.where((low == 0) & (high == alphabet), outer, middle)
    inside: Integers = np.where((low < middle) & (middle < high), middle, (low + high) // 2)
    return inside


def chance(part: Array, whole: Array) -> Array:
    """``part / whole`` on the grid of probabilities; 1/2 where ``whole`` is too small to divide by."""
    return on_grid(np.where(whole > NOTHING, part / np.maximum(whole, NOTHING), 0.5))


@dataclass(frozen=True)
class Tree:
    """The decisions by which a symbol near the middle is found, numbered from 0, the first.

    ``low``, ``middle`` and ``high`` ``(decisions,)`` say what each cuts, and where. Numbers of ``after``
    ``(2 decisions,)`` say what follows a no to each, then what follows a yes: the next decision, or ``ENDED`` where one
    symbol is left, or ``FAR`` in a part beyond those near the middle.
    """

    low: Integers
    middle: Integers
    high: Integers
    after: Integers

    @property
    def symbols(self) -> Integers:
        """All symbols at which the decisions cut, or which bound them, rising."""
        return np.unique(np.concatenate([self.low, self.middle, self.high]))

    @cached_property
    def answers(self) -> Integers:
        """What follows each answer, and the two ends of what it leaves: ``(3, 2 decisions)``."""
        lower, upper = np.concatenate([self.low, self.middle]), np.concatenate([self.middle, self.high])
        return np.stack([self.after, lower, upper])

    @staticmethod
    @lru_cache(16)
    def of(alphabet: int) -> Tree:
        """The tree of an alphabet; empty where that has no more symbols than those near the middle."""
        centre = alphabet // 2
        inner, outer = centre - NEAR, centre + NEAR + 1
        parts, after = [(0, alphabet)] if 0 < inner and outer < alphabet else [], []
        middles: list[int] = []
        for low, high in parts:  # it grows on the way
            middle = int(between(np.array([low]), np.array([high]), alphabet)[0])
            middles.append(middle)
            following = []
            for part in ((low, middle), (middle, high)):
                held = part == (0, outer) or inner <= part[0] < part[1] <= outer
                more = part[1] - part[0] > 1
                following.append((len(parts) if held else FAR) if more else ENDED)
                parts += [part] if held and more else []
            after.append(following)
        lows, highs = (np.array([part[side] for part in parts], np.int64) for side in (0, 1))
        return Tree(lows, np.array(middles, np.int64), highs, np.array(after, np.int64).reshape(-1, 2).T.ravel())


class Chances:
    """Probabilities of the decisions of a :class:`Tree` in many rows whose cells are of few kinds, made at once.

    A decoder finds the symbols of such rows a few at a time. The numbers are those of :func:`descend`: only when they
    are computed differs.

    Args:
        alphabet: number of symbols.
        tree: that of the alphabet.
        offsets: lower edges of the cells of ``tree.symbols``, less the prediction, ``(kinds, symbols)``.
        spread: predicted scale of the rows, ``(rows,)``.
        tail: of the predictive distribution.
    """

    def __init__(self, alphabet: int, tree: Tree, offsets: Array, spread: Array, tail: Tail) -> None:
        low, middle, high = np.searchsorted(tree.symbols, [tree.low, tree.middle, tree.high])
        distances, which = np.unique(np.abs(offsets), return_inverse=True)
        below, which = offsets < 0, which.reshape(offsets.shape)
        self._alphabet, self._tree, self._rows = alphabet, tree, len(spread)
        p = np.empty((len(offsets), len(spread), len(tree.middle)))
        for first in range(0, len(spread), ROWS):
            part = slice(first, first + ROWS)
            with np.errstate(over="ignore"):  # an infinite distance is far enough
                outside = tail(np.minimum(distances[:, None] / spread[part], FARTHEST))
            for kind, of_kind in enumerate(p):
                sides = sides_of(outside[which[kind]], below[kind][:, None])
                at_middle, at_high = sides[:, middle], sides[:, high]
                of_kind[part] = chance(mass(at_middle, at_high), mass(sides[:, low], at_high)).T
        self._p = p.ravel()

    @staticmethod
    def of(cells: CellsInTurn, alphabet: int, spread: Array, tail: Tail) -> Chances | None:
        """Those of a group's ``cells``; none if a turn has many rows, or the cells are not of few kinds."""
        tree = Tree.of(alphabet)
        offsets = cells.edges(tree.symbols) if len(tree.symbols) else None
        return None if offsets is None else Chances(alphabet, tree, offsets, spread, tail)

    def descend(self, kinds: Integers, cut: Cut, rows: Integers, decide: Decide) -> Integers:
        """:func:`descend` in the numbered ``rows``, whose cells are of these ``kinds``."""
        tree, decisions = self._tree, len(self._tree.middle)
        low, high = np.zeros(len(rows), np.int64), np.full(len(rows), self._alphabet, np.int64)
        left, node, first = np.arange(len(rows)), np.zeros(len(rows), np.int64), (kinds * self._rows + rows) * decisions
        far = left[:0]
        while len(left):
            middle, p = tree.middle.take(node), self._p.take(first + node)
            if len(far):
                middle[far], p[far] = self._beyond(cut, rows[left[far]], low[left[far]], high[left[far]])
            upper = decide(rows.take(left), middle, p)
            node, lower, higher = tree.answers.take(node + decisions * upper, axis=1)
            if len(far):
                yes, at = upper[far], left[far]
                lower[far], higher[far] = np.where(yes, middle[far], low[at]), np.where(yes, high[at], middle[far])
                node[far] = np.where(higher[far] - lower[far] > 1, FAR, ENDED)
            low[left], high[left] = lower, higher
            (again,) = (node != ENDED).nonzero()
            left, node, first = left.take(again), node.take(again), first.take(again)
            (far,) = (node == FAR).nonzero()
        return low

    def _beyond(self, cut: Cut, rows: Integers, low: Integers, high: Integers) -> tuple[Integers, Array]:
        """Where to cut ``[low, high)`` in the numbered rows, beyond what the tree holds, and the chances of a yes."""
        middle = between(low, high, self._alphabet)
        sides = cut(np.tile(rows, 3), np.concatenate([low, middle, high]))
        at_low, at_middle, at_high = sides.reshape(2, 3, -1).swapaxes(0, 1)
        return middle, chance(mass(at_middle, at_high), mass(at_low, at_high))
