"""What the families ``ddcm``, ``turbo_ddcm`` and ``diffc`` have in common: a path from noise to the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from math import prod, sqrt
from typing import Literal, TypeVar

import torch
from torch import Tensor

from pscx.codecs.base import CODECS, Account, Outcome, Progress, Watch
from pscx.codecs.counted import CountedPrior
from pscx.codecs.of_pixels import SizedSegment, SizeRecorder
from pscx.codecs.paths.codebooks import BLOCK, Codebook, check_codebook, codebook, padded
from pscx.codecs.paths.curve import ErrorCurve, curve_of, nats
from pscx.codecs.paths.groups import Groups, random_order
from pscx.codecs.paths.levels import MEASURES, precisions, start_of
from pscx.codecs.paths.restoring import Denoised, Restoring, Sampled, finite
from pscx.codecs.paths.sides import Reader, Side, Writer
from pscx.codecs.paths.walk import Increments, Path, Reached
from pscx.codecs.turned import NumberCodec
from pscx.codecs.with_prior import PriorCodec
from pscx.errors import PscxError, StreamError
from pscx.execution.arithmetic import difference
from pscx.execution.batching import clock
from pscx.priors.base import Prior
from pscx.restorations.base import Restoration
from pscx.signal.noise import Noise

Self = TypeVar("Self", bound="PathCodec")
Book = Literal["gaussian", "hadamard"]
SEGMENTS = 12  # at most
LARGEST = 20  # bits of an index, and of the size of a group
FINEST_LEVEL, COARSEST_LEVEL, HIGHEST_LEVEL = 0.01, 2.0, 64.0
NUMBER, STATES, COPIES = 8, 8, 6  # bytes of a float64; copies of the signal, and of what a codebook works on


class PathCodec(NumberCodec, PriorCodec):
    """A codec that sends the noise of a reverse diffusion, step by step, and denoises the last state.

    Rate control turns ``level``, the noise level at which sending stops: a family declares ``turned = "level"`` in its
    own file. It says how long each step is and how its noise is sent, in :meth:`increments`. The options are described
    at :class:`pscx.codecs.TurboDDCM`. The constructor raises ``ValueError`` if one is out of range.
    """

    parameter_at_step = 0.28

    def __init__(
        self,
        prior: Prior,
        level: float,
        steps: int,
        schedule: str,
        codebook: str,
        group: int,
        flow: int,
        seed: int,
        curve: Sequence[float] | None = None,
    ) -> None:
        super().__init__(prior)
        check_codebook(codebook)
        check_schedule(schedule)
        check_range("steps", steps, 1, 4096)
        check_range("group", group, 4, LARGEST)
        check_range("flow", flow, 1, 64)
        self.level, self.steps, self.schedule, self.codebook = rounded_level(level), steps, schedule, codebook
        self.group, self.flow, self.seed, self.noise = group, flow, seed, Noise(seed)
        self.typical = curve_of(curve)
        self.curve = None if self.typical == ErrorCurve() else [*self.typical.errors]
        self.restoring: Restoring = Denoised(flow)

    @property
    @abstractmethod
    def most_entries(self) -> int:
        """Atoms of a codebook, at most."""

    @abstractmethod
    def increments(self, shape: tuple[int, ...]) -> Increments:
        """How noise is sent for signals of this shape."""

    def coded_in(self, count: int) -> tuple[Groups, Codebook]:
        """Random groups of a signal of ``count`` numbers, and their codebooks."""
        groups = Groups(random_order(self.noise, count, self.device), -(-count // (1 << self.group)))
        return groups, codebook(self.codebook, self.noise, groups.size, self.most_entries)

    @property
    def exact(self) -> bool:
        return self.prior.exact and self.restoring.exact

    @property
    def segments(self) -> int:
        return min(self.steps, SEGMENTS)

    @property
    def quality_range(self) -> tuple[float, float]:
        return COARSEST_LEVEL, FINEST_LEVEL

    @property
    def stride(self) -> int:
        return self.prior.stride

    def evaluations(self, restorations: int) -> int:
        return self.prior.evaluations * (self.steps + restorations * self.restoring.evaluations)

    def memory(self, shape: tuple[int, ...]) -> int:
        book = COPIES * worked_on(prod(shape), self.group, self.most_entries)
        return NUMBER * (STATES * prod(shape) + book) + self.prior.memory(shape, 1)

    def precisions(self) -> list[float]:
        """The precision after each step of the schedule; the last one is that of ``level``."""
        return precisions(self.schedule, self.prior, self.level, self.steps, self.typical)

    def path(self, shape: tuple[int, ...]) -> Path:
        """The path of signals of this shape; its segments have equal divergence on a typical photograph."""
        start, end = start_of(self.schedule, self.prior, self.steps), 1 / (self.level * self.level)
        if start >= end:
            raise PscxError(f"level must be below {1 / sqrt(start):.4g}, where the path begins, got {self.level:.4g}")
        ends = self.typical.divided(start, end, self.segments, nats)
        return Path(self.prior, self.noise, self.increments(shape), start, ends, self.steps, self.typical)

    @torch.no_grad()
    def encode(
        self, signal: Tensor, progress: Progress | None = None, keep: int | None = None, *, watch: Watch | None = None
    ) -> tuple[bytes, Reached]:
        """The payload of a signal ``(channels, height, width)``; with ``keep``, of its first ``keep`` atoms or so."""
        writer = Writer()
        outcome = self._walk(writer, tuple(signal.shape), progress, watch, signal.double(), keep)
        return writer.finish(), outcome

    @torch.no_grad()
    def decode(
        self,
        payload: bytes,
        shape: tuple[int, ...],
        progress: Progress | None = None,
        *,
        partial: bool = False,
        arithmetic: str = "",
        watch: Watch | None = None,
    ) -> Reached:
        """The encoder's last state; see :meth:`pscx.codecs.SignalCodec.decode`."""
        outcome = self._walk(Reader(payload), shape, progress, watch)
        if outcome.cut is not None and not (partial and outcome.segments):
            raise StreamError(f"{outcome.cut}: {difference(arithmetic, self.arithmetic())}")
        return outcome

    def _walk(
        self,
        side: Side,
        shape: tuple[int, ...],
        progress: Progress | None,
        watch: Watch | None,
        signal: Tensor | None = None,
        keep: int | None = None,
    ) -> Reached:
        account, started, segments = Account(), clock(), self.segments

        def passed(part: SizedSegment) -> None:
            if watch is not None:
                watch(self, part)
            if progress is not None:
                progress(part.segment + 1, segments)

        outcome = self.path(shape).walk(side, shape, account, signal, keep, passed)
        account.seconds += clock() - started
        return outcome

    @torch.no_grad()
    def restore(self, outcome: Outcome, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Restoration number ``index``; unless :meth:`restored_by` says otherwise, the denoised state."""
        assert isinstance(outcome, Reached)
        started, prior = clock(), CountedPrior(self.prior, outcome.account)
        signal = self.restoring.restored(prior, self.noise, outcome, index)
        outcome.account.seconds += clock() - started
        return finite(signal)

    def restored_by(self: Self, restoration: Restoration) -> Self:
        """This codec with a restoration from samples of :class:`pscx.codecs.paths.restoring.Descent`."""
        other = copy(self)
        other.restoring = Sampled(restoration, CODECS.name_of(type(self)))
        return other

    def recorder(self, height: int, width: int) -> SizeRecorder:
        return SizeRecorder(self, height, width)


def worked_on(count: int, group: int, entries: int) -> int:
    """Numbers that codebooks of ``entries`` atoms work on at once, of groups of at most ``2^group`` numbers."""
    return min(2 * padded(count), BLOCK << group) + min(-(-count // (1 << group)), BLOCK) * entries


def check_schedule(schedule: str) -> None:
    """Raise ``ValueError`` where there is no schedule of that name."""
    if schedule not in ("even", *MEASURES):
        raise ValueError(f"schedule must be one of even, kl and least, got {schedule!r}")


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raise ``ValueError`` unless ``value`` lies in ``least..most``."""
    if not least <= value <= most:
        raise ValueError(f"{name} must lie in {least}..{most}, got {value}")


def rounded_level(level: float | None) -> float:
    """``level`` as the bfloat16 number that a stream carries. Raises ``ValueError`` unless that lies in (0, 64)."""
    rounded = torch.tensor(level or 0.0, dtype=torch.float64).to(torch.bfloat16).item()
    if not 0 < rounded < HIGHEST_LEVEL:
        raise ValueError(f"level must lie in (0, {HIGHEST_LEVEL:g}) as a bfloat16 number, got {level}")
    return float(rounded)
