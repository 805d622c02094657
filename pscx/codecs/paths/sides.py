"""Writing and reading a payload by the same calls: an encoder's numbers go in, and a decoder's come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import log2

import numpy as np

from pscx.coders.ranges import RangeDecoder, RangeEncoder, on_grid
from pscx.errors import StreamError
from pscx.signal.distributions import Array

WORD = 16  # bits of one number of the range coder
ENDS = "the payload ends"
SMOOTHING = 0.5  # of the counts of :class:`Adaptive` (Krichevsky and Trofimov 1981)


class Side(ABC):
    """One end of a stream. What a decoder gives as ``value`` or ``yes`` does not matter."""

    bits: float = 0.0
    """Ideal bits so far."""

    @abstractmethod
    def decision(self, yes: bool, p: float) -> bool:
        """A yes-or-no decision whose probability of yes is ``p``, rounded to the range coder's grid."""

    @abstractmethod
    def word(self, value: int, count: int) -> int:
        """An unsigned integer of ``count`` equally likely bits, at most 16."""

    def number(self, value: int, count: int) -> int:
        """An unsigned integer of ``count`` equally likely bits, any number of them; the highest are first."""
        taken = 0
        while count > 0:
            size = min(count, WORD)
            count -= size
            taken = taken << size | self.word(value >> count & (1 << size) - 1, size)
        return taken

    @abstractmethod
    def close(self) -> None:
        """Called at the end of each step: a decoder raises :class:`StreamError` by then if bytes are missing."""


class Writer(Side):
    """Writes a payload."""

    def __init__(self) -> None:
        self._words = RangeEncoder()

    def decision(self, yes: bool, p: float) -> bool:
        self.bits += float(self._words.put(np.array([yes]), probability(p))[0])
        return yes

    def word(self, value: int, count: int) -> int:
        self._words.put_bits(value, count)
        self.bits += count
        return value

    def close(self) -> None:
        """Nothing can be missing."""

    def finish(self) -> bytes:
        """The payload so far."""
        return self._words.finish()


class Reader(Side):
    """Reads a payload; past its end there are a few zeros.

    A hostile stream may ask for far more numbers in a step than it holds. So :class:`StreamError` is raised as soon as
    what was read cannot have been in the payload, before the step is done.
    """

    def __init__(self, payload: bytes) -> None:
        self._words, self._most = RangeDecoder(payload), 8 * len(payload) + WORD

    def decision(self, yes: bool, p: float) -> bool:
        grid = probability(p)
        found = bool(self._words.get(grid)[0])
        self._count(-log2(grid[0] if found else 1 - grid[0]))
        return found

    def word(self, value: int, count: int) -> int:
        self._count(count)
        return self._words.get_bits(count)

    def close(self) -> None:
        if self._words.exhausted:
            raise StreamError(ENDS)

    def _count(self, bits: float) -> None:
        self.bits += bits
        if self.bits > self._most:
            raise StreamError(ENDS)


class Adaptive:
    """A number of ``depth`` bits, coded as decisions along a binary tree that learns how often each was yes.

    Args:
        depth: bits of a number, at least 1.
        likely: the number that counts as seen ``weight`` times before the first one.
        weight: see ``likely``.
    """

    def __init__(self, depth: int, likely: int = 0, weight: float = 0.0) -> None:
        self._depth = depth
        self._counts = [[SMOOTHING, SMOOTHING] for _ in range(1 << depth)]
        self._learn(likely, weight)

    def code(self, side: Side, value: int) -> int:
        """Write or read a number in ``[0, 2^depth)``."""
        node = 1
        for place in range(self._depth - 1, -1, -1):
            no, yes = self._counts[node]
            node = node << 1 | side.decision(bool(value >> place & 1), yes / (no + yes))
        self._learn(node - (1 << self._depth), 1.0)
        return node - (1 << self._depth)

    def _learn(self, value: int, weight: float) -> None:
        for place in range(self._depth - 1, -1, -1):
            node = (1 << self._depth | value) >> (place + 1)
            self._counts[node][value >> place & 1] += weight


def probability(p: float) -> Array:
    """A probability as the range coder takes it."""
    return on_grid(np.array([p]))
