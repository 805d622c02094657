"""PSC: posterior sampling-based compression (Elata, Michaeli and Elad, TMLR 2025, Algorithm 1).

Encoder and decoder are one loop. :meth:`PSC.rounds` draws posterior samples, lets the row rule propose rows, yields
each group of rows with its predictions and is sent the symbols: by the encoder, who looks at the signal, or by the
decoder, who reads the stream. Data flows like this::

    signal  -> (samples -> rows -> predictions -> symbols) x iterations -> payload
    payload -> (samples -> rows -> predictions -> symbols) x iterations -> restoration -> signal
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from zlib import crc32

import torch
from torch import Tensor

from pscx.codecs.psc.gains import likely_gains
from pscx.coders.base import Coder
from pscx.errors import PscxError, StreamError
from pscx.exact import ordered_mean, square_root
from pscx.execution.arithmetic import arithmetic_of, difference
from pscx.execution.batching import clock, denoise
from pscx.execution.sharding import ALONE
from pscx.priors.base import Prior
from pscx.quantizers.base import Quantizer
from pscx.restorations.base import Restoration
from pscx.rows.base import Proposal, RowRule, Situation
from pscx.samplers.base import Problem, Sampler
from pscx.signal.measurements import Measurements
from pscx.signal.noise import Noise

SEALS, SEGMENT_BITS, LAST_SEGMENT_BITS = 36, 3, 8  # bits of all seals but the last, and the most that each of them has
FINAL = 1 << 16  # what the noise source knows as the iteration of the final restoration

SMALLEST_VARIANCE = 1e-24
PART = 1 << 20  # numbers that are looked at at once
LARGE = 1 << 22  # numbers of a signal over which its transform is made for each segment, not held between them

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """A group of rows on which both sides agree, before its symbols are known.

    ``block``, ``mean`` and ``scale`` (predicted standard deviation) are ``(r,)``, ``rows`` as in a proposal.
    """

    block: Tensor
    rows: Tensor
    mean: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Measured:
    """The rows of a segment with their predictions, symbols and values, all ``(r,)``."""

    proposal: Proposal
    mean: Tensor
    scale: Tensor
    symbols: Tensor
    value: Tensor

    @property
    def check(self) -> int:
        """A checksum of 32 bits."""
        return crc32(self.symbols.numpy().tobytes(), crc32(self.value.numpy().tobytes()))


@dataclass(frozen=True)
class Seal:
    """The end of a segment: ``bits`` bits that digest what was measured in it; both sides must find the same.

    ``samples`` are those that its rows were chosen from, if any were drawn, and ``before`` what was measured up to
    then; the loop goes on to change it.
    """

    segment: int
    digest: int
    bits: int
    measured: Measured
    samples: Tensor | None
    before: Measurements


@dataclass
class Account:
    """What a run cost: rows and ideal bits of each segment, network evaluations, seconds in the network and in all.

    That of an encoder that tried several settings has the segments of the last encoding and the cost of all of them.
    """

    segment_rows: list[int] = field(default_factory=list)
    segment_bits: list[float] = field(default_factory=list)
    evaluations: int = 0
    network_seconds: float = 0.0
    seconds: float = 0.0
    encodings: int = 1


@dataclass(frozen=True)
class Outcome:
    """What either side holds after the last segment. ``estimate`` is the last mean of the samples, if any.

    ``segments`` is how many are in the measurements, and ``cut`` why there are no more, where a payload ended early.
    """

    measurements: Measurements
    estimate: Tensor | None
    account: Account
    segments: int
    cut: StreamError | None = None


Rounds = Generator[Question | Seal, Tensor | None, Outcome]
Watch = Callable[["PSC", Seal], None]
"""What is shown each segment, when it is coded or as soon as it is known to be right, and what codes it."""


class PSC:
    """The loop of PSC over signals, for one choice of components.

    Args:
        prior: the diffusion model.
        sampler: draws the posterior samples inside the loop.
        rows: chooses what to measure.
        quantizer: turns a measurement into a symbol.
        coder: turns symbols into bytes.
        restoration: makes the final picture from all that was measured.
        restoration_sampler: draws for the restoration; the loop's sampler if none is given.
        samples: posterior samples an iteration, at least 1 (``s`` of the paper).
        iterations: rounds of sampling and measuring, at least 1 (``N`` of the paper).
        batch: at most this many samples go through the network in one call.
        seed: of all noise, in [0, 2^64).
        antithetic: draw samples in pairs of opposite noise, in the loop and for the restoration.
    """

    def __init__(
        self,
        prior: Prior,
        sampler: Sampler,
        rows: RowRule,
        quantizer: Quantizer,
        coder: Coder,
        restoration: Restoration,
        restoration_sampler: Sampler | None = None,
        samples: int = 4,
        iterations: int = 8,
        batch: int = 4,
        seed: int = 0,
        antithetic: bool = False,
    ) -> None:
        for name, value in (("samples", samples), ("iterations", iterations), ("batch", batch)):
            if not 1 <= value < FINAL:
                raise ValueError(f"{name} must be at least 1 and below {FINAL}, got {value}")
        self.prior, self.sampler, self.rows = prior, sampler, rows
        self.quantizer, self.coder, self.restoration = quantizer, coder, restoration
        self.restoration_sampler = restoration_sampler or sampler
        self.samples, self.iterations, self.batch, self.seed = samples, iterations, batch, seed
        self.antithetic = antithetic
        self.noise = Noise(seed)
        self.spread = ALONE

    @property
    def exact(self) -> bool:
        """Whether every part is exact: then a stream decodes to the same pixels on every machine."""
        parts = (self.prior, self.sampler, self.rows, self.quantizer, self.coder)
        return all(part.exact for part in (*parts, self.restoration, self.restoration_sampler))

    def conditioned(self, caption: str) -> PSC:
        """This codec under a prior that knows the image's caption; itself where the caption is empty.

        Raises :class:`pscx.errors.PscxError` where the prior takes no captions, or not this one.
        """
        if not caption:
            return self
        other = copy(self)
        other.prior = self.prior.conditioned(caption)
        return other

    def with_parameter(self, parameter: float | None) -> PSC:
        """This codec at another parameter of the quantizer. Raises ``ValueError`` where that is not allowed."""
        if parameter == self.quantizer.parameter:
            return self
        other = copy(self)
        other.quantizer = self.quantizer.with_parameter(parameter)
        return other

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor,
        progress: Progress | None = None,
        keep: int | None = None,
        *,
        watch: Watch | None = None,
    ) -> tuple[bytes, Outcome]:
        """Measure and code a signal ``(channels, height, width)``; calls ``progress(done, total)`` each iteration.

        With ``keep``, only the first so many rows are measured; the others are coded as what was predicted, which
        costs next to nothing. A decoder need not know. ``watch`` is shown each segment.
        """
        encoder = self.coder.encoder()
        shape = tuple(signal.shape)
        space = self.rows.start(self.prior, shape)
        blocks: Tensor | None = None
        bits = [0.0]
        left = keep

        def answer(question: Question) -> Tensor:
            nonlocal left, blocks
            if blocks is None:
                blocks = space.split(signal[None].double())[0]
            value = space.along(blocks, question.block, question.rows)
            if left is not None:
                value = torch.cat([value[:left], question.mean[left:]])
                left = max(left - len(value), 0)
            symbols = self.quantizer.quantize(value, question.mean, question.scale)
            bits[-1] += float(encoder.put(symbols, self.quantizer, question.mean, question.scale).sum())
            return symbols

        def seal(seal: Seal) -> None:
            nonlocal blocks
            encoder.put_bits(seal.digest, seal.bits)
            if signal.numel() > LARGE:
                blocks = None  # samples are drawn next, and fill the memory
            encoder.segment = seal.segment + 1
            bits.append(0.0)
            if watch is not None:
                watch(self, seal)

        outcome = self._drive(shape, answer, seal, progress)
        outcome.account.segment_bits = bits[:-1]
        return encoder.finish(), outcome

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
    ) -> Outcome:
        """The encoder's measurements, from its payload alone; ``arithmetic`` is what a marked stream says it was.
        ``watch`` is shown each segment.

        Raises ``StreamError`` at the first segment that the payload does not hold whole, or whose digest differs from
        the encoder's. With ``partial`` the outcome is then that of the segments before it; raises where there are none.
        Where a digest differs, the segments before it whose damage digests of three bits in all may have missed do not
        count.
        """
        outcome = self._decode(payload, shape, progress, arithmetic, watch, self.iterations)
        if outcome.cut is not None and not partial:
            raise outcome.cut
        if isinstance(outcome.cut, DamageError) and (doubtful := -(-SEGMENT_BITS // seal_bits(self.iterations)) - 1):
            spent, good = outcome.account, max(outcome.segments - doubtful, 0)
            outcome = replace(self._decode(payload, shape, None, arithmetic, None, good), cut=outcome.cut)
            outcome.account.evaluations += spent.evaluations
            outcome.account.network_seconds += spent.network_seconds
            outcome.account.seconds += spent.seconds
        if outcome.cut is not None and not outcome.segments:
            raise StreamError(f"there is nothing to show, as no segment is whole: {outcome.cut}")
        return outcome

    def _decode(
        self,
        payload: bytes,
        shape: tuple[int, ...],
        progress: Progress | None,
        arithmetic: str,
        watch: Watch | None,
        good: int,
    ) -> Outcome:
        """The first ``good`` segments, or those before the first that is not."""
        decoder = self.coder.decoder(payload)

        def answer(question: Question) -> Tensor:
            return decoder.get(self.quantizer, question.mean, question.scale)

        def seal(seal: Seal) -> None:
            if seal.segment == good:
                raise StreamError(f"only {good} segments were asked for")
            found = decoder.get_bits(seal.bits)
            decoder.segment = seal.segment + 1
            if decoder.exhausted:
                raise StreamError(f"the payload ends in segment {seal.segment + 1} of {self.iterations}")
            if found != seal.digest:
                where = f"segment {seal.segment + 1} of {self.iterations}"
                why = difference(arithmetic, arithmetic_of(self.prior))
                raise DamageError(f"{where} does not decode to what was encoded: {why}")
            if watch is not None:
                watch(self, seal)

        return self._drive(shape, answer, seal, progress)

    @torch.no_grad()
    def restore(self, outcome: Outcome, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Final restoration number ``index`` of a signal, ``(channels, height, width)`` float64."""
        prior = CountedPrior(self.prior, outcome.account)
        problem = self._problem(prior, outcome.measurements, FINAL, shape, outcome.estimate)
        started = clock()
        draw = partial(self.spread.draws, self.restoration_sampler, problem, batch=self.batch)
        signal = self.restoration.restore(draw, index)
        outcome.account.seconds += clock() - started
        return finite(signal, "the restored values")

    def rounds(self, shape: tuple[int, ...], account: Account) -> Rounds:
        """The loop itself: yields groups of rows and is sent their symbols, yields a seal after each segment.

        A ``StreamError`` that is thrown in ends it; what was measured since the last seal is then not part of it.
        """
        prior = CountedPrior(self.prior, account)
        measurements = self.rows.start(self.prior, shape)
        estimate: Tensor | None = None
        for iteration in range(self.iterations):
            samples = None  # nor may anything else hold the last ones now: those of a large image fill the memory
            if self.rows.needs_samples(iteration):
                problem = self._problem(prior, measurements, iteration, shape, estimate)
                samples = self.spread.draw(self.sampler, problem, range(self.samples), self.batch)
                estimate = finite(ordered_mean([samples]), f"the samples of iteration {iteration + 1}")
                del problem
            proposal = self._propose(self.situation(measurements, samples, iteration, prior))
            bits = LAST_SEGMENT_BITS if iteration == self.iterations - 1 else seal_bits(self.iterations)
            try:
                measured = yield from self._measure(proposal, measurements, estimate)
                yield Seal(iteration, measured.check >> (32 - bits), bits, measured, samples, measurements)
            except StreamError as error:
                return Outcome(measurements, estimate, account, iteration, error)
            self._append(measured, measurements, estimated=estimate is not None)
            account.segment_rows.append(len(proposal.block))
        return Outcome(measurements, estimate, account, self.iterations)

    def situation(self, known: Measurements, samples: Tensor | None, iteration: int, denoiser: Prior) -> Situation:
        """What the row rule is asked about in an iteration."""
        resolution = self.quantizer.resolution
        return Situation(self.prior, known, samples, iteration, self.iterations, resolution, denoiser, self.antithetic)

    def _problem(
        self, prior: Prior, known: Measurements, iteration: int, shape: tuple[int, ...], estimate: Tensor | None
    ) -> Problem:
        return Problem(prior, known, self.noise, iteration, shape, estimate, self.antithetic)

    def _propose(self, situation: Situation) -> Proposal:
        try:
            proposal = self.rows.propose(situation)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # public, but not in the stubs
            raise PscxError(f"the rows of iteration {situation.iteration + 1} cannot be found: {error}") from error
        finite(proposal.variance, f"the variances of iteration {situation.iteration + 1}")
        return replace(proposal, groups=[len(proposal.block)]) if self.quantizer.whole else proposal

    def _measure(
        self, proposal: Proposal, measurements: Measurements, estimate: Tensor | None
    ) -> Generator[Question, Tensor | None, Measured]:
        """Ask for each group of a proposal in turn."""
        mean = torch.zeros(len(proposal.block), dtype=torch.float64)
        if estimate is not None:
            mean = measurements.along(measurements.split(estimate[None])[0], proposal.block, proposal.rows)
        scale = square_root(proposal.variance.clamp_min(SMALLEST_VARIANCE))
        symbols = torch.zeros(0, dtype=torch.int64)
        parts = (torch.split(t, proposal.groups) for t in (proposal.block, proposal.rows, mean, scale))
        for block, rows, m, s in zip(*parts, strict=True):
            answer = yield Question(block, rows, m, s)
            assert answer is not None
            symbols = torch.cat([symbols, answer])
        return Measured(proposal, mean, scale, symbols, self.quantizer.dequantize(symbols, mean, scale))

    def _append(self, measured: Measured, measurements: Measurements, estimated: bool) -> None:
        """Add a segment's rows, and learn how far its predictions were off where they came from samples."""
        block, mean, symbols = measured.proposal.block, measured.mean, measured.symbols
        noise = self.quantizer.noise_variance(symbols, mean)
        measurements.append(block, measured.proposal.rows, measured.value, noise)
        if estimated:
            low, high = (edge / measured.scale for edge in self.quantizer.cells(symbols, mean))
            measurements.gains *= likely_gains(len(measurements.gains), block, low, high) ** 2

    def _drive(
        self,
        shape: tuple[int, ...],
        answer: Callable[[Question], Tensor],
        seal: Callable[[Seal], None],
        progress: Progress | None,
    ) -> Outcome:
        account = Account()
        report = progress or (lambda done, total: None)
        started = clock()
        rounds = self.rounds(shape, account)
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
            outcome: Outcome = stop.value
        account.seconds += clock() - started
        return outcome


class DamageError(StreamError):
    """A segment's digest is not the encoder's: what was decoded may be wrong since some segments."""


def seal_bits(iterations: int) -> int:
    """Bits of each seal but the last: three, or fewer where there are many segments."""
    return max(1, min(SEGMENT_BITS, SEALS // iterations))


def finite(values: Tensor, what: str) -> Tensor:
    """``values`` as they are. Raises :class:`PscxError` where one is not a finite number: a sampler may diverge."""
    if not all(bool(part.isfinite().all()) for part in torch.split(values.reshape(-1), PART)):
        raise PscxError(f"{what} are not finite numbers: the sampler diverges with these options")
    return values


class CountedPrior(Prior):
    """A prior whose network evaluations are counted and timed; otherwise ``inner``."""

    def __init__(self, inner: Prior, account: Account) -> None:
        super().__init__()
        self.inner, self.account = inner, account
        self.stride, self.exact = inner.stride, inner.exact
        self.levels, self.continuous = inner.levels, inner.continuous

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        started = clock()
        x0 = denoise(self.inner, x.to(self.inner.levels.device), sigma).to(x.device)
        self.account.network_seconds += clock() - started
        self.account.evaluations += len(x) * self.inner.evaluations
        return x0

    def to_signal(self, image: Tensor) -> Tensor:
        return self.inner.to_signal(image)

    def to_image(self, signal: Tensor) -> Tensor:
        return self.inner.to_image(signal)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return self.inner.signal_shape(height, width)

    def block_covariance(self, block: int) -> Tensor:
        return self.inner.block_covariance(block)

    def fingerprint(self) -> bytes:
        return self.inner.fingerprint()
