"""DDCM: denoising diffusion codebook models (Ohayon, Manor, Michaeli and Elad, ICML 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from pscx.codecs.base import CODECS
from pscx.codecs.paths.atoms import Atoms, Signed
from pscx.codecs.paths.family import LARGEST, Book, PathCodec, check_range
from pscx.codecs.paths.pursuit import Pursuit
from pscx.codecs.paths.sides import Side
from pscx.codecs.paths.walk import Increments, Sent, Step
from pscx.priors.base import Prior


@CODECS.register("ddcm")
class DDCM(PathCodec):
    """DDCM (Ohayon et al., ICML 2025): each step of the reverse diffusion takes noise from a codebook.

    The encoder sends the index of the noise vector that leads best towards the image. Each of the signal's groups has a
    codebook of its own. The paper's method is ``schedule: even`` with ``weight_bits`` of at least 1, ``codebook:
    gaussian`` and the lowest level of the prior; it codes the whole signal as one group.

    Args:
        prior: the diffusion model.
        level: noise level at the end of the path, over 0 and below 64, in units of the signal. Rate control turns it.
        steps: the most steps to there, 1 to 4096 (``T`` of the paper).
        schedule: ``even``: along the prior's own noise levels; ``kl``: as long as their atoms are worth in divergence.
        codebook: ``gaussian``, or ``hadamard``, which is far faster.
        entries: bits of an index: ``K = 2^entries`` atoms, 1 to 20. A Hadamard codebook has no more than its group.
        atoms: atoms in each group and step, 1 to 255 (``M`` of the paper).
        weight_bits: 0 for signed atoms of equal weight, each from its own codebook. From 1 to 8: matching pursuit of
            the paper, without signs, with weights of so many bits.
        group: random groups of at most ``2^group`` numbers are coded apart; 4 to 20.
        flow: evaluations of the restoration, 1 to 64: 1 denoises the last state, more follow the probability flow.
        seed: seed of all noise, in [0, 2^64).
        curve: squared errors of the denoiser on a typical photograph, at 27 noise levels from 64 down to 2^-7, each
            smaller by sqrt(2): in [1e-12, 4096], not rising; none for those that ship with pscx, for its own prior.

    Raises:
        ValueError: an option is out of range.
    """

    references = ("ohayon2025ddcm",)
    turned = "level"

    def __init__(
        self,
        prior: Prior,
        level: float = 0.125,
        steps: int = 1000,
        schedule: Literal["even", "kl"] = "kl",
        codebook: Book = "hadamard",
        entries: int = 14,
        atoms: int = 1,
        weight_bits: int = 0,
        group: int = 14,
        flow: int = 1,
        seed: int = 0,
        curve: list[float] | None = None,
    ) -> None:
        if schedule not in ("even", "kl"):
            raise ValueError(f"schedule of ddcm must be even or kl, got {schedule!r}")
        super().__init__(prior, level, steps, schedule, codebook, group, flow, seed, curve)
        check_range("entries", entries, 1, LARGEST)
        check_range("atoms", atoms, 1, 255)
        check_range("weight_bits", weight_bits, 0, 8)
        self.entries, self.atoms, self.weight_bits = entries, atoms, weight_bits

    @property
    def most_entries(self) -> int:
        return 1 << self.entries

    def increments(self, shape: tuple[int, ...]) -> Increments:
        parts = self.noise, *self.coded_in(prod(shape))
        made = Pursuit(*parts, self.weight_bits) if self.weight_bits else Signed(*parts)
        return _Steps(made, self.atoms, self.precisions() if self.schedule == "even" else None)


@dataclass(frozen=True)
class _Steps(Increments):
    """``count`` atoms a group; ``precisions`` after each step, or none where the atoms' worth says how far it goes."""

    made: Atoms
    count: int
    precisions: list[float] | None

    @property
    def all(self) -> int:
        return self.count * self.made.groups.groups

    def after(self, number: int, precision: float, error: float) -> float:
        if self.precisions is None:
            return precision + self.all * self.made.gain / error
        return self.precisions[number]

    def send(self, side: Side, step: Step) -> Sent:
        part = self.precisions is None and isinstance(self.made, Signed)
        return self.made.send(side, step, min(self.made.wanted(step), self.all) if part else self.all)
