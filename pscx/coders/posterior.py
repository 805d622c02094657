"""Range coding under the predictive distribution that both sides hold before a measurement is known."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from constriction import stream
from numpy.typing import NDArray
from torch import Tensor

from pscx.coders.base import CODERS, Coder, Decoder, Encoder
from pscx.quantizers.base import Quantizer

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Tail = Callable[[Array], Array]
Decide = Callable[[Booleans, Integers, Array], Booleans]

GRID, RAREST = 2.0**-20, 2.0**-16  # of the probability of a decision
NARROWEST, FARTHEST = 2.0**-64, 1e60  # smallest standard deviation; distance in standard deviations
NOTHING = 1e-250  # a mass below this is not divided by

OCTAVES = np.array(sorted(range(-8, 9), key=abs)) / 4  # of the gains to choose from, the gain 1 first
GAINS = np.round(2.0**OCTAVES * 1024) / 1024
MEMORY = 512  # rows after which what was learnt before counts half
PENALTY = 0.75  # bits for each squared octave of a gain
UNIT, UNLIKELY = 2.0**-10, 2.0**-40  # grid of code lengths in bits; the smallest mass that has one


@CODERS.register("posterior")
class Posterior(Coder):
    """A symbol costs what the mass of its cell is worth: the posterior predictive as the entropy model.

    A measurement is taken to follow a distribution with location ``mean`` and standard deviation ``scale`` times a
    gain. The ordered alphabet is halved until one symbol is left, and each decision is range coded (constriction)
    with ``p = P(upper half) / P(both)``, which is rounded to a multiple of 2^-20 and kept in [2^-16, 1 - 2^-16].
    With ``degrees`` over 0 nothing but + - * / and square roots goes into ``p``, so it is the same on every machine
    with IEEE 754 arithmetic; the Gaussian is not, because its tail comes from the mathematical library.

    A payload ends at the first byte after which whatever follows would decode to the same symbols, and
    ``exhausted`` of the decoder is true as soon as what was taken depends on bytes that are not there.

    Args:
        degrees: degrees of freedom of Student's t, even, 4 to 64; or 0 for a Gaussian. Two would have no variance.
        adapt: follow one gain of ``scale`` from group to group (:class:`Gain`); else the gain is 1.
    """

    def __init__(self, degrees: int = 4, adapt: bool = True) -> None:
        if degrees != 0 and (degrees % 2 or not 4 <= degrees <= 64):
            raise ValueError(f"coder.degrees must be 0 or even and in 4..64, got {degrees}")
        self.degrees, self.adapt = degrees, adapt

    def encoder(self) -> PosteriorEncoder:
        return PosteriorEncoder(self._predictive())

    def decoder(self, data: bytes) -> PosteriorDecoder:
        return PosteriorDecoder(self._predictive(), data)

    def _predictive(self) -> Predictive:
        tail: Tail = partial(student_tail, degrees=self.degrees) if self.degrees else gaussian_tail
        return Predictive(tail, Gain() if self.adapt else None)


class PosteriorEncoder(Encoder):
    """See :class:`Posterior`."""

    def __init__(self, predictive: Predictive) -> None:
        self._predictive = predictive
        self._words = stream.queue.RangeEncoder()

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> float:
        """Raises ``ValueError`` where a symbol is outside the alphabet, or a mean or a scale is not finite."""
        wanted = symbols.numpy()
        if ((wanted < 0) | (wanted >= quantizer.alphabet)).any():
            raise ValueError(f"symbols must lie in 0..{quantizer.alphabet - 1}, got {wanted.min()}..{wanted.max()}")
        bits = 0.0

        def decide(rows: Booleans, middle: Integers, p: Array) -> Booleans:
            nonlocal bits
            upper: Booleans = wanted[rows] >= middle
            self._words.encode(upper.astype(np.int32), *binary(p))
            bits -= float(np.log2(np.where(upper, p, 1 - p)).sum())
            return upper

        self._predictive.search(quantizer, mean, scale, decide)
        return bits

    def put_bits(self, value: int, count: int) -> None:
        if count:
            self._words.encode(value, stream.model.Uniform(1 << count))

    def finish(self) -> bytes:
        return shortest(*interval(self._words))


class PosteriorDecoder(Decoder):
    """See :class:`Posterior`; past the end it reads zeros."""

    def __init__(self, predictive: Predictive, data: bytes) -> None:
        self._predictive = predictive
        self._data = data
        self._words = stream.queue.RangeDecoder(np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32))
        self._again = stream.queue.RangeEncoder()
        self._lost = False

    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a mean or a scale is not finite."""

        def decide(rows: Booleans, middle: Integers, p: Array) -> Booleans:
            upper: Booleans = self._take(np.zeros(len(p), np.int32), *binary(p)).astype(np.bool_)
            return upper

        return self._predictive.search(quantizer, mean, scale, decide)

    def get_bits(self, count: int) -> int:
        return int(self._take(0, stream.model.Uniform(1 << count))) if count else 0

    @property
    def exhausted(self) -> bool:
        """True as well where the bytes are none that an encoder writes: cut or damaged before this point."""
        if self._lost:
            return True
        _, high, bits = interval(self._again)
        have = 8 * len(self._data)
        after = int.from_bytes(self._data, "big") + 1
        return after << max(0, bits - have) > high << max(0, have - bits)

    def _take(self, otherwise: Any, *model: Any) -> Any:
        """Decode, and encode again to follow the coder's interval; ``otherwise`` where no symbol has the code."""
        if not self._lost:
            try:
                taken = self._words.decode(*model)
            except AssertionError:  # what constriction raises for data that no encoder writes
                self._lost = True
            else:
                self._again.encode(taken, *model)
                return taken
        return otherwise


class Predictive:
    """What both sides of a posterior coder hold: the distribution's shape and the gain of its scale."""

    def __init__(self, tail: Tail, gain: Gain | None) -> None:
        self._tail, self._gain = tail, gain

    def search(self, quantizer: Quantizer, mean: Tensor, scale: Tensor, decide: Decide) -> Tensor:
        """Find one symbol a row, ``(rows,)`` int64, by halving the alphabet, and learn from what was found.

        ``decide(rows, middle, p)`` tells for the chosen ``rows`` whether the symbol is at least ``middle``, which has
        probability ``p``. Raises ``ValueError`` where a mean is not finite, or a scale not finite or negative.
        """
        if not (mean.isfinite().all() and scale.isfinite().all() and (scale >= 0).all()):
            raise ValueError("means must be finite and scales finite and not negative, got others")
        spread = np.maximum(scale.numpy(), NARROWEST)

        def cut(symbols: Integers, spread: Array) -> Array:
            edge = quantizer.lower_edge(torch.from_numpy(symbols), mean) - mean
            with np.errstate(over="ignore"):  # an infinite distance is far enough
                return both_sides(edge.numpy() / spread, self._tail)

        gain = self._gain.value if self._gain else 1.0
        symbols = descend(lambda at: cut(at, spread * gain), quantizer.alphabet, len(mean), decide)
        if self._gain:
            spreads = spread * GAINS[:, None]
            self._gain.learn(mass(cut(symbols, spreads), cut(symbols + 1, spreads)))
        return torch.from_numpy(symbols)


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

    def learn(self, masses: Array) -> None:
        """Take in the probabilities ``(17, rows)`` of what was coded, under each factor."""
        memory = MEMORY / (MEMORY + masses.shape[1])
        self._bits = self._bits * memory + code_lengths(masses).sum(1) * UNIT


def descend(cut: Callable[[Integers], Array], alphabet: int, rows: int, decide: Decide) -> Integers:
    """Halve ``[0, alphabet)`` until one symbol is left in each row; ``cut`` gives the masses on both sides of one."""
    low, high = np.zeros(rows, np.int64), np.full(rows, alphabet, np.int64)
    at_low, at_high = cut(low), cut(high)
    for _ in range((alphabet - 1).bit_length()):
        middle = (low + high) // 2
        at_middle = cut(middle)
        p = chance(mass(at_middle, at_high), mass(at_low, at_high))
        undecided = high - low > 1
        upper = np.ones(rows, np.bool_)
        upper[undecided] = decide(undecided, middle[undecided], p[undecided])
        low, high = np.where(upper, middle, low), np.where(upper, high, middle)
        at_low, at_high = np.where(upper, at_middle, at_low), np.where(upper, at_high, at_middle)
    return low


def both_sides(z: Array, tail: Tail) -> Array:
    """Mass below and above ``z`` standard deviations, stacked in front; the smaller of the two has full precision."""
    outside = tail(np.minimum(np.abs(z), FARTHEST))
    inside = 1 - outside
    return np.stack([np.where(z < 0, outside, inside), np.where(z < 0, inside, outside)])


def mass(start: Array, stop: Array) -> Array:
    """Mass between two cuts of :func:`both_sides`, taken on the side where the masses are small."""
    between: Array = np.where(start[1] < 0.5, start[1] - stop[1], stop[0] - start[0])
    return between


def chance(part: Array, whole: Array) -> Array:
    """``part / whole`` on the grid of probabilities; 1/2 where ``whole`` is too small to divide by."""
    ratio = np.where(whole > NOTHING, part / np.maximum(whole, NOTHING), 0.5)
    clamped: Array = np.clip(np.rint(ratio / GRID) * GRID, RAREST, 1 - RAREST)
    return clamped


def student_tail(z: Array, degrees: int) -> Array:
    """Mass of Student's t of unit standard deviation above ``z >= 0``, to full relative precision.

    With ``u = (degrees - 2) / (degrees - 2 + z^2)``, ``s = sqrt(1 - u)`` and ``n = degrees / 2``, the distribution
    function is ``(1 + s S(u)) / 2`` where ``S`` holds the first ``n`` terms of the series of ``1 / sqrt(1 - u)``
    (Abramowitz and Stegun, 26.7.4). Hence the tail is ``u^n R(u) / (2 (1 + s S(u)))`` with a polynomial ``R`` whose
    coefficients are all positive, and no difference of nearly equal numbers is left.
    """
    series, rest = student_polynomials(degrees)
    square = degrees - 2 + z * z
    u, s = (degrees - 2) / square, z / np.sqrt(square)
    return polynomial(rest, u) / (2 * (1 + s * polynomial(series, u)))


@lru_cache
def student_polynomials(degrees: int) -> tuple[list[float], list[float]]:
    """Coefficients, lowest power first, of ``S`` and of ``u^n R = 1 - (1 - u) S^2`` of :func:`student_tail`."""
    n = degrees // 2
    series = [Fraction(1)]
    for k in range(1, n):
        series.append(series[-1] * Fraction(2 * k - 1, 2 * k))
    square = [Fraction(0)] * (2 * n)
    for i, a in enumerate(series):
        for j, b in enumerate(series):
            square[i + j] += a * b
    rest = [Fraction(0)] + [before - after for before, after in pairwise(square)]
    return [float(a) for a in series], [float(a) for a in rest]


def gaussian_tail(z: Array) -> Array:
    """Mass of the standard normal distribution above ``z``."""
    tail: Array = torch.special.erfc(torch.from_numpy(z * 0.7071067811865476)).numpy() / 2
    return tail


def polynomial(coefficients: list[float], x: Array) -> Array:
    """Horner's scheme, lowest power first."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def code_lengths(masses: Array) -> Integers:
    """``-log2`` of masses in units of 2^-10 bits, by arithmetic that is the same everywhere."""
    fraction, exponent = np.frexp(np.maximum(masses, UNLIKELY))
    small = fraction < 0.70703125
    fraction, exponent = np.where(small, 2 * fraction, fraction), exponent - small
    y = (fraction - 1) / (fraction + 1)
    square = y * y
    log2 = 2.8853900817779268 * y * (1 + square * (1 / 3 + square * (1 / 5)))  # 2 / ln 2 times artanh y
    lengths: Integers = np.rint((exponent + log2) / -UNIT).astype(np.int64)
    return lengths


def binary(p: Array) -> tuple[Any, Array]:
    """The model of yes-or-no decisions with probabilities ``p``, as constriction takes it."""
    return stream.model.Bernoulli(perfect=False), p


def interval(coder: Any) -> tuple[int, int, int]:
    """What a range coder narrowed the code down to: ``(low, high, bits)``.

    Exactly the strings whose first ``bits`` bits, as a number, lie in ``[low, high)`` decode to what was encoded.
    """
    if coder.is_empty():
        return 0, 1 << 64, 64
    position, (lower, width) = coder.pos()
    sealed = coder.get_compressed()[: position + 1]  # a multiple of 2^32 at or above the low end; carries are done
    point = int.from_bytes(sealed.astype(">u4").tobytes(), "big") << 32
    low = point - (point - lower) % (1 << 64)
    return low, low + width, 32 * (position + 2)


def shortest(low: int, high: int, bits: int) -> bytes:
    """The shortest string, of whole bytes, all of whose continuations lie in ``[low, high)``, of ``bits`` bits."""
    count = bits // 8 - 8
    while True:
        unit = 1 << (bits - 8 * count)
        first = -(-low // unit)
        if (first + 1) * unit <= high:
            return first.to_bytes(count, "big")
        count += 1
