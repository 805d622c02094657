"""The way from noise to an image that encoder and decoder walk together.

The state is ``x = x0 + sigma z``. A step goes from the level ``sigma`` to a smaller one, ``after``, along the ancestral
step of DDPM (Ho et al. 2020) with the denoiser's estimate ``e``::

    x' = r x + (1 - r) e + after sqrt(1 - r) noise,     r = after^2 / sigma^2

If the noise had the mean ``sqrt(1 / after^2 - 1 / sigma^2) (x0 - e)`` and variance 1, ``x'`` would be ``x0`` with noise
of level ``after``. A family sends noise close to that. The decoder reads it from the payload; all else is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from zlib import crc32

import torch
from torch import Tensor

from pscx.codecs.base import Account, Outcome
from pscx.codecs.counted import CountedPrior
from pscx.codecs.of_pixels import SizedSegment
from pscx.codecs.paths.curve import ErrorCurve
from pscx.codecs.paths.error import TrackedError
from pscx.codecs.paths.sides import Side
from pscx.errors import PscxError, StreamError
from pscx.priors.base import Prior
from pscx.signal.noise import Noise

START = 1 << 41  # noise index of the first state
CHECK_BITS, LAST_CHECK_BITS = 3, 8  # of the checksum of each segment; of the last one
GOES_ON = 1 - 2.0**-12  # probability that another step follows
ALMOST = 1 - 2.0**-20  # of a precision is as good as that precision
DIVERGES = "{} has numbers that are not finite: the denoiser diverges"


@dataclass(frozen=True)
class Step:
    """One step. ``number`` counts from 0. ``sent`` is the number of atoms of all steps before it, and ``paid`` the
    divergence predicted for them, in nats.

    ``precision`` and ``after`` are ``1 / sigma^2`` at its two ends, ``error`` the predicted squared error of the
    denoiser, summed over the signal. ``target`` is the mean that the noise should have, in the signal's ``shape``; a
    decoder has none.
    """

    shape: tuple[int, ...]
    number: int
    sent: int
    paid: float
    precision: float
    after: float
    error: float
    target: Tensor | None

    @property
    def nats(self) -> float:
        """Predicted divergence of the step."""
        return (self.after - self.precision) * self.error / 2


@dataclass(frozen=True)
class Sent:
    """Noise in the shape of the signal, and the number of atoms that it is made of."""

    noise: Tensor
    atoms: int


class Increments(ABC):
    """What a family adds to the walk."""

    @abstractmethod
    def after(self, number: int, precision: float, error: float) -> float:
        """Precision after step ``number``, from the predicted squared error; above the end of the path counts as it."""

    @abstractmethod
    def send(self, side: Side, step: Step) -> Sent:
        """Write or read the noise of a step. An encoder chooses it by the target."""


@dataclass(frozen=True)
class Reached(Outcome):
    """The state after the last good segment, ``(channels, height, width)`` float64, and its noise level."""

    state: Tensor
    level: float


@dataclass(frozen=True)
class Path:
    """From precision ``start`` in segments that end at the precisions ``ends``, with at most ``steps`` steps.

    ``curve`` is the typical error.
    """

    prior: Prior
    noise: Noise
    increments: Increments
    start: float
    ends: list[float]
    steps: int
    curve: ErrorCurve

    def walk(
        self,
        side: Side,
        shape: tuple[int, ...],
        account: Account,
        signal: Tensor | None = None,
        keep: int | None = None,
        passed: Callable[[SizedSegment], None] | None = None,
    ) -> Reached:
        """Walk to the end, or to the first segment at which ``side`` or a checksum raises :class:`StreamError`.

        An encoder gives the ``signal``; with ``keep`` it stops before the step with which there would be more atoms.
        """
        walker = _Walker(self, side, shape, account, signal, keep)
        good = walker.state, walker.level
        for segment in range(len(self.ends)):
            before, sent = side.bits, walker.sent
            try:
                estimate = walker.pass_segment(segment)
            except StreamError as error:
                return Reached(account, segment, *good, cut=error)
            account.segment_bits.append(side.bits - before)
            account.segment_symbols.append(walker.sent - sent)
            good = walker.state, walker.level
            if passed is not None:
                passed(SizedSegment(segment, estimate, side.bits - before))
        return Reached(account, len(self.ends), *good)


class _Walker:
    """The state of one walk."""

    def __init__(
        self,
        path: Path,
        side: Side,
        shape: tuple[int, ...],
        account: Account,
        signal: Tensor | None,
        keep: int | None,
    ) -> None:
        self._path, self._side, self._signal, self._keep = path, side, signal, keep
        self._prior = CountedPrior(path.prior, account)
        self._error = TrackedError(side, torch.Size(shape).numel(), path.curve)
        self._precision, self._number, self._stopped = path.start, 0, False
        self.sent, self._paid = 0, 0.0
        noise = path.noise.normal(shape, iteration=START, sample=0, step=0, device=path.prior.home)
        self.state = noise * self.level

    @property
    def level(self) -> float:
        return 1 / sqrt(self._precision)

    def pass_segment(self, segment: int) -> Tensor | None:
        """Take the steps of a segment and check its checksum; the estimate before its first step, if there is one."""
        first = None
        while self._precision < self._path.ends[segment] * ALMOST and self._goes_on():
            estimate = self._prior.denoise(self.state[None], self.level)[0].double()
            first = estimate if first is None else first
            self._take(estimate)
            self._side.close()
        if not self.state.isfinite().all():
            raise PscxError(DIVERGES.format(f"the state after segment {segment + 1}"))
        self._seal(segment)
        return first

    def _goes_on(self) -> bool:
        if not self._stopped and self._number < self._path.steps:
            self._stopped = not self._side.decision(self._keep is None or self.sent < self._keep, GOES_ON)
            return not self._stopped
        return False

    def _take(self, estimate: Tensor) -> None:
        """One step."""
        residual = None if self._signal is None else self._signal - estimate
        actual = None if residual is None else float(residual.square().sum())
        if actual is not None and not isfinite(actual):
            raise PscxError(DIVERGES.format(f"the estimate in step {self._number + 1}"))
        error = self._error.follow(self._precision, actual)
        path, precision = self._path, self._precision
        after = min(path.increments.after(self._number, precision, error), path.ends[-1])
        target = None if residual is None else residual * sqrt(after - precision)
        shape, number = tuple(self.state.shape), self._number
        step = Step(shape, number, self.sent, self._paid, precision, after, error, target)
        found = path.increments.send(self._side, step)
        ratio = precision / after
        spread = sqrt((1 - ratio) / after)
        self.state = ratio * self.state + (1 - ratio) * estimate + spread * found.noise
        self._precision, self._number = after, number + 1
        self.sent, self._paid = self.sent + found.atoms, self._paid + step.nats

    def _seal(self, segment: int) -> None:
        last = segment == len(self._path.ends) - 1
        count = LAST_CHECK_BITS if last else CHECK_BITS
        digest = crc32(self.state.cpu().numpy().tobytes()) >> (32 - count)
        found = self._side.number(digest, count)
        self._side.close()
        if found != digest:
            raise StreamError(f"segment {segment + 1} of {len(self._path.ends)} does not decode to what was encoded")
