"""Masses of quantizer cells under a predictive distribution, by arithmetic that is the same on every machine.

All distributions have mean 0 and standard deviation 1; a *tail* is the mass above ``z >= 0``.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Numbers = TypeVar("Numbers", Array, torch.Tensor)
Tail = Callable[[Array], Array]

FARTHEST = 1e60  # distance in standard deviations
UNIT, UNLIKELY = 2.0**-10, 2.0**-40  # grid of code lengths in bits; the smallest mass that has one


def tail_of(degrees: int) -> Tail:
    """The tail of Student's t with so many degrees of freedom, even and at least 4; or of a Gaussian for 0."""
    return partial(student_tail, degrees=degrees) if degrees else gaussian_tail


def check_degrees(degrees: int, name: str) -> None:
    """Raise ``ValueError`` unless ``degrees`` is 0 or even and in 4..64; ``name`` is what the option is called."""
    if degrees != 0 and (degrees % 2 or not 4 <= degrees <= 64):
        raise ValueError(f"{name} must be 0 or even and in 4..64, got {degrees}")


def both_sides(z: Array, tail: Tail) -> Array:
    """Mass below and above ``z`` standard deviations, stacked in front; the smaller of the two has full precision."""
    return sides_of(tail(np.minimum(np.abs(z), FARTHEST)), z < 0)


def sides_of(outside: Array, below: Booleans) -> Array:
    """:func:`both_sides` of cuts that have the mass ``outside`` beyond them, and lie ``below`` the mean or above it."""
    inside = 1 - outside
    sides = np.empty((2, *outside.shape))
    for side, elsewhere, there in ((sides[0], inside, outside), (sides[1], outside, inside)):
        side[...] = elsewhere
        np.copyto(side, there, where=below)
    return sides


def mass(start: Array, stop: Array) -> Array:
    """Mass between two cuts of :func:`both_sides`, taken on the side where the masses are small."""
    between: Array = np.where(start[1] < 0.5, start[1] - stop[1], stop[0] - start[0])
    return between


def student_tail(z: Array, degrees: int) -> Array:
    """Mass of Student's t of unit standard deviation above ``z >= 0``, to full relative precision.

    With ``u = (degrees - 2) / (degrees - 2 + z^2)``, ``s = sqrt(1 - u)`` and ``n = degrees / 2``, the distribution
    function is ``(1 + s S(u)) / 2`` where ``S`` holds the first ``n`` terms of the series of ``1 / sqrt(1 - u)``
    (Abramowitz and Stegun, 26.7.4). Hence the tail is ``u^n R(u) / (2 (1 + s S(u)))`` with a polynomial ``R`` whose
    coefficients are all positive, and no difference of nearly equal numbers is left.
    """
    series, rest = student_polynomials(degrees)
    square = z * z
    square += degrees - 2
    u, s = (degrees - 2) / square, z / np.sqrt(square, out=square)
    s *= polynomial(series, u)
    s += 1
    s *= 2
    tail = polynomial(rest, u)
    tail /= s
    return tail


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


def polynomial(coefficients: list[float], x: Numbers) -> Numbers:
    """Horner's scheme for at least two coefficients, lowest power first."""
    value = x * coefficients[-1]
    value += coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value *= x
        value += coefficient
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


def cell_bits(low: Array, high: Array, degrees: int) -> Array:
    """Bits, at most 40, of cells between two edges in standard deviations; ``degrees`` as in :func:`tail_of`."""
    tail = tail_of(degrees)
    bits: Array = code_lengths(mass(both_sides(low, tail), both_sides(high, tail))).astype(np.float64) * UNIT
    return bits
