"""How much work and memory a stream may ask for: known, and refused, before either is spent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, floor, log10, prod
from typing import Protocol

from pscx.codec import PSC
from pscx.errors import StreamError
from pscx.restorations.base import Restoration
from pscx.rows.base import RowRule
from pscx.samplers.base import Sampler
from pscx.spread import micro_batch

NUMBER = 8  # bytes of a float64
USUAL_MEMORY = 1 << 34  # where a machine does not tell what it has
STATES = 4  # copies of the signals of a micro-batch that a sampler holds
SMALL_IMAGE = 1 << 14  # pixels that an evaluation counts as at least, so that a tiny image does not pay for days
SECONDS = 6e-6  # of an evaluation of one pixel by the shipped prior on two cores of a CPU: right within a factor of 3
LEAST_SECONDS = 1e-2  # of an evaluation of any image, likewise


class Loop(Protocol):
    """What a codec's work depends on, beside its prior."""

    @property
    def samples(self) -> int: ...

    @property
    def iterations(self) -> int: ...

    @property
    def sampler(self) -> Sampler: ...

    @property
    def rows(self) -> RowRule: ...

    @property
    def restoration(self) -> Restoration: ...

    @property
    def restoration_sampler(self) -> Sampler: ...


@dataclass(frozen=True)
class Limits:
    """Bounds on what decoding one stream may take.

    Args:
        evaluations: number of denoiser evaluations (NFE) for one signal, over all samples, steps and iterations and the
            restorations: the work for each pixel. The published method takes 205,000, and twice as many with a caption.
        pixel_evaluations: the budget: the same times the image's pixels, which count as at least 2^14. The default is
            enough for the recipe ``default`` at 48 million pixels; the published method needs more beyond 41,000.
        memory: bytes held at once, estimated; none for all that the machine has.
    """

    evaluations: int = 1 << 20
    pixel_evaluations: int = 1 << 33
    memory: int | None = None

    @classmethod
    def of(cls, budget: float | None = None, memory: float | None = None) -> Limits:
        """The defaults with another ``budget`` (evaluations times pixels) or ``memory`` (bytes), where given.

        A budget over the default is the only bound on the work.
        """
        bytes_ = None if memory is None else int(memory)
        if budget is None:
            return cls(memory=bytes_)
        return cls(max(cls.evaluations, int(budget)), int(budget), bytes_)

    def check_work(self, loop: Loop, height: int, width: int, restorations: int, each: int = 1) -> None:
        """Raise ``StreamError`` where a codec asks for more work for an image of this size; needs no prior.

        ``each`` is how many network evaluations one of the denoiser takes.
        """
        evaluations = each * loop_evaluations(loop, restorations)
        work = evaluations * max(height * width, SMALL_IMAGE)
        if evaluations > self.evaluations:
            bound = f"over {self.evaluations} evaluations"
        elif work > self.pixel_evaluations:
            bound = f"over the budget of {self.pixel_evaluations:.3g} evaluations times pixels"
        else:
            return
        raise StreamError(
            f"the stream asks for {evaluations} denoiser evaluations of {height * width} pixels, which take "
            f"{duration(evaluations, height * width)} on two CPU cores: {bound}; if it may take that long, say so "
            f"(--budget {rounded_up(work)})"
        )

    def check(self, psc: PSC, height: int, width: int, shape: tuple[int, ...], restorations: int) -> None:
        """Raise ``StreamError`` where a codec asks for more, for an image of this size and a signal of this shape."""
        self.check_work(psc, height, width, restorations, psc.prior.evaluations)
        self.check_memory(memory_of(psc, shape))

    def check_memory(self, memory: int) -> None:
        """Raise ``StreamError`` where so many bytes are too much."""
        limit = machine_memory() if self.memory is None else self.memory
        if memory > limit:
            raise StreamError(
                f"decoding takes about {memory / 1e9:.1f} GB of memory and {limit / 1e9:.1f} GB may be taken: if there "
                "is more, say so (--memory GB)"
            )


UNBOUNDED = Limits.of(budget=1 << 63)
"""For streams of one's own codec: memory alone is bounded."""


def loop_evaluations(loop: Loop, restorations: int) -> int:
    """Denoiser evaluations of one signal for a loop and so many restorations, at most."""
    each = loop.samples * loop.sampler.evaluations + loop.rows.evaluations
    return loop.iterations * each + restorations * loop.restoration.draws * loop.restoration_sampler.evaluations


def evaluations_of(psc: PSC, restorations: int) -> int:
    """Network evaluations of one signal for a loop and so many restorations, at most."""
    return psc.prior.evaluations * loop_evaluations(psc, restorations)


def duration(evaluations: int, pixels: int) -> str:
    """Roughly how long so many evaluations of an image take, in words."""
    seconds = evaluations * max(SECONDS * pixels, LEAST_SECONDS)
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"roughly {round(count) if count < 20 else 10 * round(count / 10)} {unit}"
    return "roughly a minute"


def rounded_up(work: int) -> str:
    """A number of two digits that is not below ``work``."""
    power = max(floor(log10(work)) - 1, 0)
    return f"{ceil(work / 10**power) * 10**power:.2g}"


def memory_of(psc: PSC, shape: tuple[int, ...]) -> int:
    """Bytes that a loop over signals of this shape and its restoration hold at once, roughly."""
    batch = micro_batch(psc.prior, shape, min(psc.batch, max(psc.samples, psc.restoration.draws)))
    loop = NUMBER * prod(shape) * STATES * batch
    return loop + psc.prior.memory(shape, batch) + psc.rows.memory(shape, psc.samples, psc.iterations)


def picture_memory(height: int, width: int) -> int:
    """Bytes of an image's pixels as they are computed with: held whatever the codec is."""
    return NUMBER * 3 * height * width


def machine_memory() -> int:
    """Bytes of main memory, or 16 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return USUAL_MEMORY
