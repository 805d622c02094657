"""Range coding under the predictive distribution that both sides hold before a measurement is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from pscx.coders.base import CODERS, Coder, check_predictions, check_symbols
from pscx.coders.decisions import Chances, Decide, descend
from pscx.coders.ranges import RangeCodedDecoder, RangeCodedEncoder
from pscx.quantizers import CellsInTurn, Quantizer
from pscx.signal.distributions import (
    UNIT,
    Array,
    Booleans,
    Integers,
    Tail,
    both_sides,
    check_degrees,
    code_lengths,
    mass,
    tail_of,
)

NARROWEST = 2.0**-64  # smallest standard deviation

OCTAVES = np.array(sorted(range(-8, 9), key=abs)) / 4  # of the gains to choose from, the gain 1 first
LEARNT = 1 << 10  # rows from which a gain is learnt at once: they stay in the cache
GAINS = np.round(2.0**OCTAVES * 1024) / 1024
MEMORY = 512  # rows after which what was learnt before counts half
PENALTY = 0.75  # bits for each squared octave of a gain
LEAST_GAIN = 1 / 64  # that may be given beforehand


@CODERS.register("posterior")
class Posterior(Coder):
    """A symbol costs what the mass of its cell is worth: the posterior predictive as the entropy model.

    A measurement is taken to follow a distribution with location ``mean`` and standard deviation ``scale`` times a
    gain. The ordered alphabet is cut in two
    (:func:`pscx.coders.decisions.between`) until one symbol is left, and each decision is range
    coded (constriction) with ``p = P(upper part) / P(both)``, which is rounded to a multiple of 2^-20 and kept in
    [2^-16, 1 - 2^-16]. With ``degrees`` over 0 nothing but + - * / and square roots goes into ``p``, so it is the
    same on every machine with IEEE 754 arithmetic; the Gaussian is not, because its tail comes from the mathematical
    library.

    A payload ends at the first byte after which whatever follows would decode to the same symbols, and
    ``exhausted`` of the decoder is true as soon as what was taken depends on bytes that are not there.

    Args:
        degrees: degrees of freedom of Student's t, even, 4 to 64; or 0 for a Gaussian. Two would have no variance.
        adapt: follow one gain of ``scale`` from group to group (:class:`Gain`); else the gain is 1.
        gains: factors of ``scale`` in each segment, in [1/64, 64], that are known beforehand (``pscx fit`` finds
            them); the last is that of all further segments. None is 1 throughout.
    """

    references = ("bamler2022constriction",)

    def __init__(self, degrees: int = 4, adapt: bool = True, gains: list[float] | None = None) -> None:
        check_degrees(degrees, "coder.degrees")
        wrong = [gain for gain in gains or [] if not LEAST_GAIN <= gain <= 1 / LEAST_GAIN]
        if wrong or gains == []:
            allowed = f"in [{LEAST_GAIN}, {1 / LEAST_GAIN:g}]"
            raise ValueError(
                f"coder.gains must be at least one number, each {allowed}, got {wrong[0] if wrong else []}"
            )
        self.degrees, self.adapt, self.gains = degrees, adapt, gains
        self.exact = degrees > 0

    def encoder(self) -> PosteriorEncoder:
        return PosteriorEncoder(self._predictive())

    def decoder(self, data: bytes) -> PosteriorDecoder:
        return PosteriorDecoder(self._predictive(), data)

    def _predictive(self) -> Predictive:
        return Predictive(tail_of(self.degrees), Gain() if self.adapt else None, self.gains or [1.0])


class PosteriorEncoder(RangeCodedEncoder):
    """See :class:`Posterior`."""

    def __init__(self, predictive: Predictive) -> None:
        super().__init__()
        self._predictive = predictive

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a symbol is outside the alphabet, or a mean or a scale is not finite."""
        check_symbols(symbols, quantizer)
        cells = quantizer.cells_in_turn(mean, symbols)
        wanted = symbols.numpy()
        bits = np.zeros(len(wanted))
        asked: list[tuple[Integers, Booleans, Array]] = []

        def decide(rows: Integers, middle: Integers, p: Array) -> Booleans:
            upper: Booleans = wanted[rows] >= middle
            asked.append((rows, upper, p))
            return upper

        def put() -> None:
            if asked:
                rows, upper, p = (np.concatenate(part) for part in zip(*asked, strict=True))
                order = np.argsort(cells.turn(rows), kind="stable")  # a decoder finds those of one turn after the other
                np.add.at(bits, rows[order], self.range.put(upper[order], p[order]))
                asked.clear()

        self._predictive.search(cells, quantizer.alphabet, mean, scale, self.segment, decide, put)
        return torch.from_numpy(bits)


class PosteriorDecoder(RangeCodedDecoder):
    """See :class:`Posterior`; past the end it reads zeros."""

    def __init__(self, predictive: Predictive, data: bytes) -> None:
        super().__init__(data)
        self._predictive = predictive

    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a mean or a scale is not finite."""
        cells, alphabet = quantizer.cells_in_turn(mean), quantizer.alphabet
        found = self._predictive.search(
            cells, alphabet, mean, scale, self.segment, lambda rows, middle, p: self.range.get(p)
        )
        return torch.from_numpy(found)


class Predictive:
    """What both sides of a posterior coder hold: the distribution's shape and the gains of its scale."""

    def __init__(self, tail: Tail, gain: Gain | None, known: Sequence[float]) -> None:
        self._tail, self._gain, self._known = tail, gain, known

    def search(
        self,
        cells: CellsInTurn,
        alphabet: int,
        mean: Tensor,
        scale: Tensor,
        segment: int,
        decide: Decide,
        after: Callable[[], None] = lambda: None,
    ) -> Integers:
        """Find one symbol a row, ``(rows,)``, by cutting the alphabet in two, and learn from what was found.

        ``decide(rows, middle, p)`` tells for the numbered ``rows`` whether the symbol is at least ``middle``, which has
        probability ``p``; ``after()`` is called after each turn. Raises ``ValueError`` where a mean is not finite, or a
        scale not finite or negative.
        """
        check_predictions(mean, scale)
        known = self._known[min(segment, len(self._known) - 1)]
        spread = np.maximum(scale.numpy(), NARROWEST) * known
        gained = spread * (self._gain.value if self._gain else 1.0)

        def cut(rows: Integers, at: Integers, spread: Array) -> Array:
            with np.errstate(over="ignore"):  # an infinite distance is far enough
                return both_sides(cells.lower(rows, at) / spread, self._tail)

        def gained_cut(rows: Integers, at: Integers) -> Array:
            return cut(rows, at, gained[rows])

        found = np.zeros(len(spread), np.int64)
        table = Chances.of(cells, alphabet, gained, self._tail)
        for rows in cells.turns():
            if table is None:
                found[rows] = descend(gained_cut, alphabet, rows, decide)
            else:
                found[rows] = table.descend(cells.kinds(rows), gained_cut, rows, decide)
            cells.take(rows, found[rows])
            after()
        if self._gain:
            starts = range(0, len(found), LEARNT)
            parts = (np.arange(start, min(start + LEARNT, len(found))) for start in starts)
            spreads = ((rows, spread[rows] * GAINS[:, None]) for rows in parts)
            masses = (mass(*(cut(rows, found[rows] + above, wide) for above in (0, 1))) for rows, wide in spreads)
            self._gain.learn(len(found), masses)
        return found


class Gain:
    """One factor for all scales, which both sides learn from the groups that were coded.

    For each of 17 factors from 1/4 to 4 it keeps the bits that past rows would have cost; the cheapest is next. A
    group of ``n`` rows first scales what was kept by ``512 / (512 + n)``, so a small group moves little and an empty
    one nothing; a penalty of 0.75 bits times the squared octaves from 1 keeps few rows from moving it far. Code
    lengths are integers before they are added, so the sum does not depend on its order.
    """

    def __init__(self) -> None:
        self._bits = np.zeros(len(GAINS))

    @property
    def value(self) -> float:
        """The factor for the next group."""
        return float(GAINS[np.argmin(self._bits + PENALTY * OCTAVES * OCTAVES)])

    def learn(self, rows: int, masses: Iterable[Array]) -> None:
        """Take in the probabilities ``(17, rows)`` of one group, in any number of parts, under each factor."""
        lengths = sum((code_lengths(part).sum(1) for part in masses), np.zeros(len(GAINS), np.int64))
        self._bits = self._bits * (MEMORY / (MEMORY + rows)) + lengths * UNIT
