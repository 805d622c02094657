"""The loop of PSC (Elata, Michaeli and Elad, TMLR 2025, Algorithm 1), shared by encoder and decoder.

:meth:`Loop.rounds` is a generator. In each iteration it draws posterior samples and lets the row rule propose rows. It
yields these rows in groups, with predictions, and receives their symbols. The encoder computes the symbols from the
signal, the decoder reads them from the payload. All else is the same, so both sides hold the same measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from torch import Tensor

from pscx.codecs.base import Account, Outcome, Progress, Segment
from pscx.codecs.counted import CountedPrior
from pscx.codecs.psc.gains import likely_gains
from pscx.errors import PscxError, StreamError
from pscx.exact import ordered_mean, square_root
from pscx.execution.batching import clock
from pscx.execution.sharding import Spread
from pscx.priors.base import Prior
from pscx.quantizers.base import Quantizer, dequantized
from pscx.rows.base import Predictions, Proposal, RowRule, Situation, proposed
from pscx.samplers.base import Problem, Sampler
from pscx.signal.measurements import Measurements
from pscx.signal.noise import Noise

CHECKSUM_BITS, SEGMENT_BITS, LAST_SEGMENT_BITS = 36, 3, 8  # of all segments but the last; the most of one; of the last
SMALLEST_VARIANCE = 1e-24
CPU = torch.device("cpu")
DIVERGES = "{} are not finite numbers: the sampler diverges with these options"


@dataclass(frozen=True)
class Question:
    """Asks for the symbols of a group of ``r`` rows.

    ``mean`` (predicted value) and ``scale`` (predicted standard deviation) are ``(r,)``, on the CPU; so is ``value``,
    what the encoder measures along the rows, and which a decoder does not have. All are times the rows' weights.
    """

    mean: Tensor
    scale: Tensor
    value: Tensor | None


@dataclass(frozen=True)
class Measured:
    """The rows of a segment, on the prior's device; predictions, symbols and what they stand for, ``(r,)``, on the CPU.

    ``value`` are quantized values and ``noise`` their noise variances, in units of the signal; ``mean``, ``scale`` and
    the edges of the symbols' cells, ``low`` and ``high``, less the mean, are multiplied by the rows' weights.
    """

    proposal: Proposal
    mean: Tensor
    scale: Tensor
    symbols: Tensor
    value: Tensor
    noise: Tensor
    low: Tensor
    high: Tensor

    @property
    def check(self) -> int:
        """CRC-32 of the values and symbols; a segment checksum is its highest bits."""
        return crc32(self.symbols.numpy().tobytes(), crc32(self.value.numpy().tobytes()))


@dataclass(frozen=True)
class Seal(Segment):
    """The end of a segment, with its checksum: ``digest``, the highest ``bits`` bits of :attr:`Measured.check`.

    ``samples`` are the posterior samples from which its rows were chosen, if any were drawn; ``estimate`` is their
    mean. ``before`` holds the measurements of earlier segments; the loop modifies it afterwards. ``evaluations`` are
    the denoiser evaluations (NFE) of this segment.
    """

    digest: int
    bits: int
    measured: Measured
    samples: Tensor | None
    before: Measurements
    evaluations: int


@dataclass(frozen=True)
class Known(Outcome):
    """What both sides hold after the last segment. ``estimate`` is the last posterior mean, if samples were drawn."""

    measurements: Measurements
    estimate: Tensor | None


Rounds = Generator[Question | Seal, Tensor | None, Known]
Along = Callable[[Proposal], Tensor]
"""What a signal measures along the rows of a proposal, ``(r,)`` float64 where the signal lives."""


@dataclass(frozen=True)
class Loop:
    """The components and numbers of the loop; :class:`pscx.PSC` describes them."""

    prior: Prior
    sampler: Sampler
    rows: RowRule
    quantizer: Quantizer
    samples: int
    iterations: int
    batch: int
    noise: Noise
    spread: Spread
    antithetic: bool
    least_rows: float

    def rounds(self, shape: tuple[int, ...], account: Account, along: Along | None = None) -> Rounds:
        """Yield a :class:`Question` for each group of rows and receive its symbols; yield a :class:`Seal` per segment.

        A question has the values that ``along`` finds. Symbols and their predictions are on the CPU. All else stays on
        the prior's device: each segment moves one tensor from there and one tensor back.

        A ``StreamError`` thrown in ends the loop. The outcome then has only the segments before it.
        """
        prior = CountedPrior(self.prior, account)
        measurements = self.rows.start(self.prior, shape)
        estimate: Tensor | None = None
        for iteration in range(self.iterations):
            spent = account.evaluations
            samples = None  # nor may anything else hold the last ones now: those of a large image fill the memory
            fresh = None
            if self.rows.needs_samples(iteration):
                problem = self.problem(prior, measurements, iteration, shape, estimate)
                samples = self.spread.draw(self.sampler, problem, range(self.samples), self.batch)
                fresh = estimate = ordered_mean([samples])
                del problem
            proposal = self._propose(self.situation(measurements, samples, iteration, prior), fresh)
            few = iteration > 0 and len(proposal.block) < self.least_rows * measurements.partition.count
            last = few or iteration == self.iterations - 1
            bits = LAST_SEGMENT_BITS if last else checksum_bits(self.iterations)
            try:
                measured = yield from self._measure(proposal, measurements, estimate, along, iteration)
                seal = iteration, fresh, measured.check >> (32 - bits), bits, measured, samples, measurements
                yield Seal(*seal, account.evaluations - spent)
            except StreamError as error:
                return Known(account, iteration, measurements, estimate, cut=error)
            self._append(measured, measurements, estimated=estimate is not None)
            account.segment_symbols.append(len(proposal.block))
            if last:
                break
        return Known(account, iteration + 1, measurements, estimate)

    def situation(self, known: Measurements, samples: Tensor | None, iteration: int, denoiser: Prior) -> Situation:
        """The row rule's input in an iteration."""
        resolution = self.quantizer.resolution
        return Situation(self.prior, known, samples, iteration, self.iterations, resolution, denoiser, self.antithetic)

    def problem(
        self, prior: Prior, known: Measurements, iteration: int, shape: tuple[int, ...], estimate: Tensor | None
    ) -> Problem:
        """The posterior to sample from; ``iteration`` is the index of the noise."""
        return Problem(prior, known, self.noise, iteration, shape, estimate, self.antithetic)

    def drive(
        self,
        shape: tuple[int, ...],
        answer: Callable[[Question], Tensor],
        seal: Callable[[Seal], None],
        progress: Progress | None,
        along: Along | None = None,
    ) -> Known:
        """Run the loop: ``answer`` returns the symbols of a group, ``seal`` is called at the end of each segment."""
        account = Account()
        report = progress or (lambda done, total: None)
        started = clock()
        rounds = self.rounds(shape, account, along)
        reply: Tensor | None = None
        try:
            while True:
                step = rounds.send(reply)
                reply = None
                try:
                    if isinstance(step, Question):
                        reply = answer(step)
                    else:
                        seal(step)
                        report(step.segment + 1, self.iterations)
                    del step  # a seal holds samples, and the next are drawn now
                except StreamError as error:
                    rounds.throw(error)
        except StopIteration as stop:
            outcome: Known = stop.value
        if outcome.cut is None and outcome.segments < self.iterations:
            report(self.iterations, self.iterations)
        account.seconds += clock() - started
        return outcome

    def _propose(self, situation: Situation, estimate: Tensor | None) -> Proposal:
        try:
            proposal = proposed(self.rows, situation)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # public, but not in the stubs
            if estimate is not None:
                finite(estimate, samples_of(situation.iteration))
            raise PscxError(f"the rows of iteration {situation.iteration + 1} cannot be found: {error}") from error
        in_turn = proposal.predictions is not None or not self.quantizer.whole
        return proposal if in_turn else replace(proposal, groups=[len(proposal.block)])

    def _measure(
        self,
        proposal: Proposal,
        measurements: Measurements,
        estimate: Tensor | None,
        along: Along | None,
        iteration: int,
    ) -> Generator[Question, Tensor | None, Measured]:
        """Predict the rows of a proposal, and ask for the symbols of each group in turn."""
        mean, sound = torch.zeros_like(proposal.variance), torch.ones_like(proposal.variance[:1])
        if estimate is not None:
            mean = measurements.along(measurements.split(estimate[None])[0], proposal.block, proposal.rows)
            sound = all_finite(estimate)[None].double()
        weight = torch.ones_like(proposal.variance) if proposal.weight is None else proposal.weight
        values = [] if along is None else [along(proposal)]
        mean, variance, weight, *values, sound = across([mean, proposal.variance, weight, *values, sound], CPU)
        if not sound.all():
            raise PscxError(DIVERGES.format(samples_of(iteration)))
        finite(variance, f"the variances of iteration {iteration + 1}")
        predictions = proposal.predictions() if proposal.predictions else one_by_one(mean, variance, proposal.groups)
        parts = torch.split(values[0], proposal.groups) if values else [None] * len(proposal.groups)
        none = torch.zeros(0, dtype=torch.float64)
        coded, value = [(none, none, none.long(), none, none, none, none)], None
        for own, by in zip(parts, torch.split(weight, proposal.groups), strict=True):
            mean, variance = next(predictions) if value is None else predictions.send(value)
            mean, scale = mean * by, square_root(variance.clamp_min(SMALLEST_VARIANCE)) * by
            symbols = yield Question(mean, scale, None if own is None else own * by)
            assert symbols is not None
            value, noise = dequantized(self.quantizer, symbols, mean, scale)
            value, noise = value / by, noise / (by * by)
            coded.append((mean, scale, symbols, value, noise, *self.quantizer.cells(symbols, mean)))
        predictions.close()
        return Measured(proposal, *(torch.cat(part) for part in zip(*coded, strict=True)))

    def _append(self, measured: Measured, measurements: Measurements, estimated: bool) -> None:
        """Append a segment's rows. If its predictions came from samples, update the gain of each block."""
        block, found = measured.proposal.block, [measured.value, measured.noise]
        if estimated:
            found += [edge / measured.scale for edge in (measured.low, measured.high)]
        value, noise, *edges = across(found, measurements.device)
        measurements.append(block, measured.proposal.rows, value, noise)
        if estimated:
            measurements.gains *= likely_gains(len(measurements.gains), block, *edges) ** 2


def one_by_one(mean: Tensor, variance: Tensor, groups: list[int]) -> Predictions:
    """Predictions ``(r,)`` that are known beforehand, group by group."""
    means, variances = torch.split(mean, groups), torch.split(variance, groups)
    for number in range(len(groups)):
        yield means[number], variances[number]


def checksum_bits(iterations: int) -> int:
    """Bits of the checksum of each segment but the last: three, or fewer where there are many segments."""
    return max(1, min(SEGMENT_BITS, CHECKSUM_BITS // iterations))


def across(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors ``(any,)`` float64, moved to a device in one transfer; unchanged if they are there already."""
    if tensors[0].device == device:
        return tensors
    return list(torch.split(torch.cat(tensors).to(device), [len(tensor) for tensor in tensors]))


def samples_of(iteration: int) -> str:
    """The samples of an iteration, as error messages name them."""
    return f"the samples of iteration {iteration + 1}"


def all_finite(values: Tensor) -> Tensor:
    """Whether all ``values``, at least one, are finite: a bool tensor without dimensions, on their device."""
    return torch.stack(torch.aminmax(values)).isfinite().all()  # both are NaN where a number is


def finite(values: Tensor, what: str) -> Tensor:
    """``values`` as they are. Raises :class:`PscxError` where one is not a finite number: a sampler may diverge."""
    if values.numel() and not all_finite(values):
        raise PscxError(DIVERGES.format(what))
    return values
