"""Code lengths of quantizer cells under Student's t with 4 degrees of freedom, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.exact import square_root
from pscx.signal.distributions import FARTHEST, UNIT, UNLIKELY, polynomial, student_polynomials

DEGREES = 4


def cell_lengths(low: Tensor, high: Tensor) -> Tensor:
    """Code lengths, int64 in units of 2^-10 bits, of cells between two edges in standard deviations.

    The bits of :func:`pscx.signal.distributions.code_lengths` of the cells' masses, on any device: each step is a
    single IEEE operation.
    """
    (below, above), (below_high, above_high) = sides(low), sides(high)
    masses = torch.where(above < 0.5, above - above_high, below_high - below)
    fraction, exponent = torch.frexp(masses.clamp_min(UNLIKELY))
    small = fraction < 0.70703125
    fraction, exponent = torch.where(small, 2 * fraction, fraction), exponent - small.int()
    y = (fraction - 1) / (fraction + 1)
    square = y * y
    log2 = 2.8853900817779268 * y * (1 + square * (1 / 3 + square * (1 / 5)))  # 2 / ln 2 times artanh y
    return ((exponent + log2) * (-1 / UNIT)).round().long()


def sides(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mass below and above ``z`` standard deviations, as :func:`pscx.signal.distributions.both_sides`."""
    series, rest = student_polynomials(DEGREES)
    distance = z.abs().clamp_max(FARTHEST)
    square = distance * distance + (DEGREES - 2)
    u = square.reciprocal() * (DEGREES - 2)  # a division, as long as that is a power of two
    scale = (distance / square_root(square) * polynomial(series, u) + 1) * 2
    outside = polynomial(rest, u) / scale
    inside, negative = 1 - outside, z < 0
    return torch.where(negative, outside, inside), torch.where(negative, inside, outside)
