"""Turbo-DDCM: few steps of many atoms (Vaisman, Ohayon, Manor, Elad and Michaeli, ICLR 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pscx.codecs.base import CODECS
from pscx.codecs.paths.atoms import Atoms, Signed
from pscx.codecs.paths.family import LARGEST, Book, PathCodec, check_range
from pscx.codecs.paths.levels import Schedule
from pscx.codecs.paths.ranking import Ranked
from pscx.codecs.paths.sides import Side
from pscx.codecs.paths.walk import Increments, Sent, Step
from pscx.priors.base import Prior


@CODECS.register("turbo_ddcm")
class TurboDDCM(PathCodec):
    """Turbo-DDCM (Vaisman et al., ICLR 2026): each of few steps adds many atoms of noise with signs.

    As published, a step takes the ``atoms`` atoms of one codebook that lead best towards the image, and sends their set
    by its rank. Without ``atoms``, the number follows from the divergence of the step, which both sides know, and each
    atom comes from a codebook of its own.

    Args:
        prior: the diffusion model.
        level: noise level at the end of the path, over 0 and below 64, in units of the signal. Rate control turns it.
        steps: steps to there, 1 to 4096 (``T`` of the paper).
        schedule: ``even``: along the prior's own noise levels; ``kl``: steps of equal divergence on a typical
            photograph; ``least``: of the least divergence in all.
        codebook: ``gaussian``, or ``hadamard``, which is far faster.
        entries: bits of an index: ``K = 2^entries`` atoms, 1 to 20. A Hadamard codebook has no more than its group.
        atoms: atoms in each group and step, 1 to 255 (``M`` of the paper), or none for what the divergence asks for.
        group: random groups of at most ``2^group`` numbers are coded apart; 4 to 20.
        flow: evaluations of the restoration, 1 to 64: 1 denoises the last state, more follow the probability flow.
        seed: seed of all noise, in [0, 2^64).
        curve: squared errors of the denoiser on a typical photograph, at 27 noise levels from 64 down to 2^-7, each
            smaller by sqrt(2): in [1e-12, 4096], not rising; none for those that ship with pscx, for its own prior.

    Raises:
        ValueError: an option is out of range.
    """

    references = ("vaisman2025turbo", "ohayon2025ddcm")
    turned = "level"

    def __init__(
        self,
        prior: Prior,
        level: float = 0.125,
        steps: int = 24,
        schedule: Schedule = "least",
        codebook: Book = "hadamard",
        entries: int = 14,
        atoms: int | None = None,
        group: int = 14,
        flow: int = 1,
        seed: int = 0,
        curve: list[float] | None = None,
    ) -> None:
        super().__init__(prior, level, steps, schedule, codebook, group, flow, seed, curve)
        check_range("entries", entries, 1, LARGEST)
        if atoms is not None:
            check_range("atoms", atoms, 1, 255)
        self.entries, self.atoms = entries, atoms

    @property
    def most_entries(self) -> int:
        return 1 << self.entries

    def increments(self, shape: tuple[int, ...]) -> Increments:
        parts = self.noise, *self.coded_in(prod(shape))
        made = Signed(*parts) if self.atoms is None else Ranked(*parts)
        return _Steps(made, self.atoms, self.precisions())


@dataclass(frozen=True)
class _Steps(Increments):
    """``count`` atoms a group, or none for what a step's divergence asks for."""

    made: Atoms
    count: int | None
    precisions: list[float]

    def after(self, number: int, precision: float, error: float) -> float:
        return self.precisions[number]

    def send(self, side: Side, step: Step) -> Sent:
        if self.count is None:
            return self.made.send(side, step, self.made.wanted(step))
        count = min(self.count, self.made.codebook.entries)
        return self.made.send(side, step, count * self.made.groups.groups)
