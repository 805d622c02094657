"""How far predicted spreads were off, learnt block by block from what was just coded."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pscx.coders.posterior import GAINS, OCTAVES, PART, PENALTY
from pscx.exact import square_root
from pscx.signal.distributions import FARTHEST, UNIT, UNLIKELY, polynomial, student_polynomials

DEGREES = 4
SHARED_ROWS = 8.0  # the mean row of all blocks counts in each block as much as this many rows of its own


def likely_gains(blocks: int, block: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Most likely factor of the predicted standard deviation in each block, ``(blocks,)`` float64, from 1/4 to 4.

    ``block`` ``(r,)`` says where a row lies; ``low`` and ``high`` ``(r,)`` are the edges of its quantizer cell, less
    the prediction, in predicted standard deviations. The likelihood is that of Student's t with 4 degrees of freedom
    (as :class:`pscx.coders.Posterior`), code lengths are integers, so the sums are the same in any order.
    """
    gains, penalty = choices_on(block.device)
    own = torch.zeros(len(gains), blocks, dtype=torch.int64, device=block.device)
    for place, first, last in zip(*(torch.split(rows, PART) for rows in (block, low, high)), strict=True):
        own.index_add_(1, place, cell_lengths(*((edge / gains).clamp(-1e12, 1e12) for edge in (first, last))))
    shared = own.sum(1, keepdim=True).double() * (SHARED_ROWS / max(len(block), 1))
    return gains[:, 0][(own + shared + penalty).argmin(0)]


@lru_cache(8)
def choices_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """The gains to choose from, and the code length that each costs beforehand, ``(17, 1)`` on a device."""
    gains, penalty = (torch.from_numpy(part)[:, None] for part in (GAINS, PENALTY / UNIT * OCTAVES * OCTAVES))
    return gains.to(device), penalty.to(device)


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
