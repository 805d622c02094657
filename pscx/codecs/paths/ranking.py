"""Sets of atoms of one codebook, sent as their rank among all sets of that size, as in Turbo-DDCM."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

from pscx.codecs.paths.atoms import Atoms, normalized
from pscx.codecs.paths.codebooks import Place
from pscx.codecs.paths.sides import Side
from pscx.errors import StreamError


class Ranked(Atoms):
    """The atoms of one codebook that correlate best, with signs, scaled to variance 1 (Vaisman et al., ICLR 2026).

    A set of ``m`` out of ``k`` atoms is sent as its rank, in the bits that ``comb(k, m)`` ranks need, and ``m`` signs.
    All groups must have the same number of atoms, at least one.
    """

    def block(self, side: Side, place: Place, target: Tensor | None, shares: Sequence[int]) -> Tensor:
        scores = None if target is None else self.codebook.scores(target, place).cpu()
        weights = []
        for group, share in enumerate(shares):
            best = list(range(share))
            signs = 0
            if scores is not None:
                best = sorted(torch.topk(scores[group].abs(), share).indices.tolist())
                signs = sum(1 << place for place, atom in enumerate(best) if scores[group, atom] < 0)
            best = send_set(side, best, self.codebook.entries)
            signs = side.number(signs, share)
            weights.append({atom: -1.0 if signs >> number & 1 else 1.0 for number, atom in enumerate(best)})
        return normalized(self.sums(weights, place))


def send_set(side: Side, chosen: Sequence[int], count: int) -> list[int]:
    """Write or read a rising list of ``len(chosen)`` numbers below ``count``.

    Raises :class:`StreamError` if the bits are no rank.
    """
    sets = comb(count, len(chosen))
    rank = side.number(rank_of(chosen), (sets - 1).bit_length())
    if rank >= sets:
        raise StreamError(f"rank {rank} is not below {sets}: the stream is damaged")
    return set_of(rank, len(chosen), count)


def rank_of(chosen: Sequence[int]) -> int:
    """Rank of a rising list of numbers among all of its length, in the combinatorial number system.

    >>> [rank_of(pair) for pair in ((0, 1), (0, 2), (1, 2), (0, 3))]
    [0, 1, 2, 3]
    """
    return sum(comb(number, place) for place, number in enumerate(chosen, 1))


def set_of(rank: int, size: int, count: int) -> list[int]:
    """The inverse of :func:`rank_of` for ``size`` numbers below ``count``.

    >>> set_of(3, 2, 4)
    [0, 3]
    """
    chosen = []
    high = count
    for place in range(size, 0, -1):
        low = place - 1
        while high - low > 1:
            middle = (low + high) // 2
            if comb(middle, place) <= rank:
                low = middle
            else:
                high = middle
        chosen.append(low)
        rank -= comb(low, place)
        high = low
    return chosen[::-1]
