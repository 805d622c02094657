"""Matching pursuit in one codebook, as in DDCM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscx.codecs.paths.atoms import Atoms, normalized
from pscx.codecs.paths.codebooks import Place
from pscx.codecs.paths.sides import Side

LEAST = 1e-12  # squared length of a mixture


@dataclass(frozen=True)
class Pursuit(Atoms):
    """Atoms of one codebook without signs, by matching pursuit (Ohayon et al., ICML 2025, section on higher rates).

    The first atom is the one that correlates best with the target. Each other one, ``z``, turns the noise ``s`` so far
    into ``w s + (1 - w) z``, scaled to variance 1, with the atom and the weight ``w`` that correlate best. Weights are
    ``1 / 2^weight_bits``, ..., 1. All groups must have the same number of atoms, at least one.
    """

    weight_bits: int = 1

    def block(self, side: Side, place: Place, target: Tensor | None, shares: Sequence[int]) -> Tensor:
        scores = None if target is None else self.codebook.scores(target, place)
        picks = [0] * len(shares) if scores is None else scores.argmax(1).tolist()
        total = self._atoms(side, place, picks)
        for _ in range(shares[0] - 1):
            picks, weights = [0] * len(shares), [0] * len(shares)
            if scores is not None:
                assert target is not None
                picks, weights = self._best(place, total, (total * target).sum(1, keepdim=True), scores)
            atoms = self._atoms(side, place, picks)
            sent = [(side.number(weight, self.weight_bits) + 1) / (1 << self.weight_bits) for weight in weights]
            share = torch.tensor(sent, dtype=torch.float64, device=total.device)[:, None]
            total = normalized(share * total + (1 - share) * atoms)
        return total

    def _atoms(self, side: Side, place: Place, picks: list[int]) -> Tensor:
        """One atom in each group."""
        return self.sums([{side.number(pick, self.bits): 1.0} for pick in picks], place)

    def _best(self, place: Place, total: Tensor, along: Tensor, scores: Tensor) -> tuple[list[int], list[int]]:
        """Atom and number of the weight for each group, by the correlation of the mixture; only an encoder asks.

        ``along`` is the inner product of ``total`` with the target, ``scores`` are those of the atoms.
        """
        cross = self.codebook.scores(total, place) / self.groups.size
        found = []
        for number in range(1 << self.weight_bits):
            w = (number + 1) / (1 << self.weight_bits)
            squared = w * w + (1 - w) ** 2 + 2 * w * (1 - w) * cross
            found.append((w * along + (1 - w) * scores) * squared.clamp_min(LEAST).rsqrt())
        best = torch.stack(found, 1).flatten(1).argmax(1)
        return (best % scores.shape[1]).tolist(), (best // scores.shape[1]).tolist()
