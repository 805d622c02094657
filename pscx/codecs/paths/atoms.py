"""Noise as a sum of atoms of codebooks: which ones, and how they are sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from pscx.codecs.paths.codebooks import BLOCK, Codebook, Place, Weights
from pscx.codecs.paths.groups import Groups
from pscx.codecs.paths.sides import Side
from pscx.codecs.paths.walk import Sent, Step
from pscx.exact.roots import square_root
from pscx.signal.noise import Noise

EXTREMES = (
    *(0.798, 1.128, 1.465, 1.783, 2.077, 2.347, 2.596, 2.828, 3.044, 3.248, 3.442),
    *(3.626, 3.802, 3.971, 4.134, 4.291, 4.443, 4.59, 4.733, 4.872, 5.008),
)
"""Mean of the largest magnitude among ``2^b`` independent standard normal numbers, ``b`` = 0, 1, ..., 20."""
MOST_ATOMS = 255  # of a group in a step
FRESH = 1 << 42  # noise index of the numbers of groups without an atom
UNIT = 2.0**-12  # of the numbers whose squares are summed


@dataclass(frozen=True)
class Atoms(ABC):
    """How the noise of a signal's groups is made of atoms.

    Args:
        noise: for the groups that get no atom.
        groups: which numbers are coded together.
        codebook: for groups of that size.
    """

    noise: Noise
    groups: Groups
    codebook: Codebook

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return (self.codebook.entries - 1).bit_length()

    @property
    def gain(self) -> float:
        """Squared length along the target that a signed atom adds, in mean: twice its worth in nats."""
        return EXTREMES[self.bits] * EXTREMES[self.bits]

    def wanted(self, step: Step) -> int:
        """How many signed atoms are worth the divergence up to the end of a step, less those that were sent.

        At most :data:`MOST_ATOMS` a group. Parts of atoms are made up for in later steps.
        """
        owed = round(2 * (step.paid + step.nats) / self.gain) - step.sent
        return min(max(owed, 0), MOST_ATOMS * self.groups.groups)

    def send(self, side: Side, step: Step, count: int) -> Sent:
        """Write or read ``count`` atoms, shared among the groups as evenly as can be."""
        every, others = divmod(count, self.groups.groups)
        shares = [every] * self.groups.groups
        for extra in range(others):
            shares[(step.sent + extra) % self.groups.groups] += 1
        target = None if step.target is None else self.groups.split(step.target)
        parts = []
        for first in range(0, self.groups.groups, BLOCK):
            here, place = shares[first : first + BLOCK], Place(step.number, 0, first // BLOCK)
            total = self.block(side, place, None if target is None else target[first : first + BLOCK], here)
            parts.append(self._with_fresh(total, place, here))
        return Sent(self.groups.join(torch.cat(parts), step.shape), count)

    @abstractmethod
    def block(self, side: Side, place: Place, target: Tensor | None, shares: Sequence[int]) -> Tensor:
        """The noise of a block of groups, ``(groups, size)`` of variance 1, from ``shares`` atoms each."""

    def sums(self, weights: Weights, place: Place) -> Tensor:
        """:meth:`Codebook.sums` where the signal lives."""
        return self.codebook.sums(weights, place, self.groups.order.device)

    def _with_fresh(self, total: Tensor, place: Place, shares: Sequence[int]) -> Tensor:
        """``total`` with fresh noise in the groups that have no atom."""
        for group, share in enumerate(shares):
            if not share:
                where = {"iteration": FRESH + place.step, "sample": place.sample + group, "step": 0}
                total[group] = self.noise.normal((self.groups.size,), **where, device=total.device)
        return total


class Signed(Atoms):
    """Atoms with signs, each from a codebook of its own, of equal weight.

    Each is the one that correlates best with the target; the sum is divided by the root of their number.
    """

    def block(self, side: Side, place: Place, target: Tensor | None, shares: Sequence[int]) -> Tensor:
        device = self.groups.order.device
        total = torch.zeros(len(shares), self.groups.size, dtype=torch.float64, device=device)
        for atom in range(max(shares)):
            own = Place(place.step, atom, place.block)
            best = [0] * len(shares) if target is None else _best(self.codebook.scores(target, own))
            weights: list[dict[int, float]] = [{} for _ in shares]
            for group, share in enumerate(shares):
                if share > atom:
                    sent = side.number(best[group], self.bits + 1)
                    weights[group][sent >> 1] = -1.0 if sent & 1 else 1.0
            total += self.sums(weights, own)
        factors = [1 / sqrt(max(share, 1)) for share in shares]
        return total * torch.tensor(factors, dtype=torch.float64, device=device)[:, None]


def _best(scores: Tensor) -> list[int]:
    """Twice the number of the atom of largest magnitude in each group, and 1 more if its score is negative."""
    picked = scores.abs().argmax(1, keepdim=True)
    found: list[int] = (2 * picked + (scores.gather(1, picked) < 0))[:, 0].tolist()
    return found


def normalized(vectors: Tensor) -> Tensor:
    """Vectors ``(groups, size)`` scaled to a mean square of 1; their squares are summed as whole numbers, exactly."""
    whole = (vectors / UNIT).round()
    mean = whole.square().sum(1, keepdim=True) * (UNIT * UNIT / vectors.shape[1])
    return vectors / square_root(mean.clamp_min(UNIT))
