"""PSC: posterior sampling-based compression (Elata, Michaeli and Elad, TMLR 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from math import lcm

import torch
from torch import Tensor

from pscx.codecs.base import CODECS, Outcome, Progress, Watch
from pscx.codecs.psc.decoding import Decoding
from pscx.codecs.psc.encoding import encode
from pscx.codecs.psc.first_rows import FirstRows
from pscx.codecs.psc.loop import Known, Loop, Seal
from pscx.codecs.psc.recorder import PSCRecorder
from pscx.codecs.psc.restoring import FINAL, allowed, restored
from pscx.codecs.with_prior import PriorCodec
from pscx.coders.base import Coder
from pscx.execution.arithmetic import arithmetic_of
from pscx.execution.sharding import micro_batch
from pscx.priors.base import Prior
from pscx.quantizers.base import Quantizer
from pscx.restorations.base import Restoration
from pscx.rows.base import RowRule
from pscx.samplers.base import Sampler, with_options
from pscx.signal.noise import Noise

NUMBER, STATES = 8, 4  # bytes of a float64; copies of the signals of a micro-batch that a sampler holds


@CODECS.register("psc")
class PSC(PriorCodec):
    """PSC (Elata, Michaeli and Elad, TMLR 2025, Algorithm 1): measure what posterior samples disagree about.

    In each iteration both sides draw ``samples`` posterior samples, and the row rule chooses from them what to measure
    next. The encoder sends quantized measurements, entropy-coded under predicted means and variances, never the rows.

    Args:
        prior: the diffusion model.
        sampler: draws the posterior samples inside the loop.
        rows: chooses what to measure.
        quantizer: turns a measurement into a symbol.
        coder: turns symbols into bytes.
        restoration: makes the final picture from all measurements.
        restoration_sampler: draws the samples of the restoration; default: the loop's sampler.
        samples: posterior samples per iteration, at least 1 (``s`` of the paper).
        iterations: iterations of sampling and measuring, at least 1 (``N`` of the paper). Each makes one segment.
        batch: micro-batch: the largest number of samples in one network call, at least 1.
        seed: seed of all noise, in [0, 2^64).
        antithetic: draw samples in pairs of opposite noise, in the loop and for the restoration.
        least_rows: the loop ends early, after the first iteration but number 0 that measures fewer rows than this for
            each block, on average over the row rule's blocks; at least 0. 0: all iterations are made.

    Raises:
        ValueError: an option is out of range.
    """

    references = ("elata2025psc",)
    turned, shares_samples = "quantizer", True

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
        least_rows: float = 0.0,
    ) -> None:
        check_numbers(samples=samples, iterations=iterations, batch=batch, least_rows=least_rows)
        check_parts(prior, restoration, sampler=sampler, rows=rows, restoration_sampler=restoration_sampler)
        super().__init__(prior)
        self.sampler, self.rows, self.quantizer, self.coder = sampler, rows, quantizer, coder
        self.restoration, self.restoration_sampler, self.antithetic = restoration, restoration_sampler, antithetic
        self.samples, self.iterations, self.batch, self.seed = samples, iterations, batch, seed
        self.least_rows, self.noise = least_rows, Noise(seed)

    @property
    def final_sampler(self) -> Sampler:
        """The sampler of the restoration, with the options that the restoration draws with."""
        return with_options(self.restoration_sampler or self.sampler, self.restoration.drawing)

    @property
    def loop(self) -> Loop:
        """The loop with these components."""
        parts = (self.prior, self.sampler, self.rows, self.quantizer, self.samples, self.iterations, self.batch)
        return Loop(*parts, self.noise, self.spread, self.antithetic, self.least_rows)

    @property
    def exact(self) -> bool:
        parts = (self.prior, self.sampler, self.rows, self.quantizer, self.coder)
        return all(part.exact for part in (*parts, self.restoration, self.final_sampler))

    @property
    def segments(self) -> int:
        return self.iterations

    @property
    def parameter(self) -> float | None:
        return self.quantizer.parameter

    @property
    def parameter_name(self) -> str:
        return self.quantizer.parameter_name

    @property
    def quality_range(self) -> tuple[float, float]:
        return self.quantizer.quality_range

    def with_parameter(self, parameter: float | None) -> PSC:
        if parameter == self.quantizer.parameter:
            return self
        other = copy(self)
        other.quantizer = self.quantizer.with_parameter(parameter)
        return other

    @property
    def stride(self) -> int:
        side = self.prior.signal_shape(self.prior.stride, self.prior.stride)[-1]
        return lcm(self.prior.stride, self.rows.stride * (self.prior.stride // side))

    def evaluations(self, restorations: int) -> int:
        """Upper bound of the denoiser evaluations (NFE): those of the samples, the row rule and the restorations."""
        loop = self.iterations * (self.samples * self.sampler.evaluations + self.rows.evaluations)
        return self.prior.evaluations * (loop + restorations * self.restoration.draws * self.final_sampler.evaluations)

    def work(self, shape: tuple[int, ...], restorations: int) -> float:
        return self.rows.work(shape, self.samples, self.iterations, self.evaluations(restorations))

    def memory(self, shape: tuple[int, ...]) -> int:
        """Estimated peak memory in bytes: a micro-batch of signals, the prior and the row rule."""
        batch = micro_batch(self.prior, shape, min(self.batch, max(self.samples, self.restoration.draws)))
        loop = NUMBER * STATES * batch * torch.Size(shape).numel()
        return loop + self.prior.memory(shape, batch) + self.rows.memory(shape, self.samples, self.iterations)

    @torch.no_grad()
    def encode(
        self, signal: Tensor, progress: Progress | None = None, keep: int | None = None, *, watch: Watch | None = None
    ) -> tuple[bytes, Known]:
        """The payload of a signal; see :func:`pscx.codecs.psc.encoding.encode`."""
        return encode(self.loop, self.coder, signal, progress, keep, reporter(self, watch))

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
    ) -> Known:
        """The encoder's measurements; see :class:`pscx.codecs.psc.decoding.Decoding`."""
        side = Decoding(self.loop, self.coder, payload, shape, arithmetic, arithmetic_of(self.prior))
        return side.known(progress, partial, reporter(self, watch))

    @torch.no_grad()
    def restore(self, outcome: Outcome, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Restoration number ``index``, ``(channels, height, width)`` float64, from the final sampler's draws."""
        assert isinstance(outcome, Known)
        return restored(self.loop, self.restoration, self.final_sampler, outcome, shape, index)

    def restored_by(self, restoration: Restoration) -> PSC:
        """This codec with another restoration. Raises :class:`PscxError` where the sampler lacks an option of it."""
        other = copy(self)
        other.restoration = allowed(restoration, self.restoration_sampler or self.sampler)
        return other

    def recorder(self, height: int, width: int) -> PSCRecorder:
        return PSCRecorder(height, width, self.coder, self.quantizer)

    def first_rows(self) -> FirstRows:
        return FirstRows()


def check_numbers(**numbers: float) -> None:
    """Raises ``ValueError`` where one is below 1 (``least_rows``: below 0) or not below :data:`FINAL`."""
    for name, value in numbers.items():
        least = 0 if name == "least_rows" else 1
        if not least <= value < FINAL:
            raise ValueError(f"{name} must be at least {least} and below {FINAL}, got {value}")


def reporter(codec: PSC, watch: Watch | None) -> Callable[[Seal], None] | None:
    """What the loop tells of each segment it has done, or none."""
    return None if watch is None else lambda seal: watch(codec, seal)


def check_parts(
    prior: Prior, restoration: Restoration, sampler: Sampler, rows: RowRule, restoration_sampler: Sampler | None
) -> None:
    """Raise ``ValueError`` where the restoration draws with an option that its sampler lacks, or a part needs the
    posterior mean and the prior gives none.
    """
    with_options(restoration_sampler or sampler, restoration.drawing)
    parts = {"sampler": sampler, "rows": rows, "restoration_sampler": restoration_sampler}
    needing = [name for name, part in parts.items() if part is not None and part.needs_mean]
    if needing and not prior.posterior_mean:
        part = parts[needing[0]]
        raise ValueError(
            f"{needing[0]} must work without the posterior mean, which a prior distilled to a few steps does not give, "
            f"and {type(part).__name__} does not"
        )
