"""How much work and memory a stream may ask for: known, and refused, before either is spent."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10

import torch

from pscx.codecs.base import SignalCodec
from pscx.errors import StreamError
from pscx.runtime.memory import memory_left

NUMBER = 8  # bytes of a float64
SMALL_IMAGE = 1 << 14  # pixels that an evaluation counts as at least, so that a tiny image does not pay for days
SECONDS = 6e-6  # of an evaluation of one pixel by the shipped prior on two cores of a CPU: right within a factor of 3
LEAST_SECONDS = 1e-2  # of an evaluation of any image, likewise
PIXEL_WORK = 6e4  # multiply-adds that take two cores of a CPU as long as an evaluation of one pixel


@dataclass(frozen=True)
class Limits:
    """Bounds on what decoding one stream may take.

    Args:
        evaluations: number of denoiser evaluations (NFE) for one signal, over all samples, steps and iterations and the
            restorations: the work for each pixel. The published method takes 205,000, and twice as many with a caption.
        pixel_evaluations: the budget: the same times the image's pixels, which count as at least 2^14. The default is
            enough for the recipe ``default`` at 48 million pixels; the published method needs more beyond 41,000. All
            other work of a codec is bounded by the same budget: :data:`PIXEL_WORK` multiply-adds are one pixel's.
        memory: bytes held at once, estimated; none for all that the machine, or its accelerator, has.
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

    def check_work(self, evaluations: int, height: int, width: int) -> None:
        """Raise ``StreamError`` where so many evaluations are too much work for an image of this size."""
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

    def check_other_work(self, work: float) -> None:
        """Raise ``StreamError`` where so many multiply-adds beside the evaluations are too much."""
        pixels = ceil(work / PIXEL_WORK)
        if pixels > self.pixel_evaluations:
            raise StreamError(
                f"the stream asks for some {work:.1g} multiply-adds beside its denoiser evaluations, which take "
                f"{duration(1, pixels)} on two CPU cores: over the budget of {self.pixel_evaluations:.3g} evaluations "
                f"times pixels; if it may take that long, say so (--budget {rounded_up(pixels)})"
            )

    def check(self, codec: SignalCodec, height: int, width: int, shape: tuple[int, ...], restorations: int) -> None:
        """Raise ``StreamError`` where a codec asks for more, for an image of this size and a signal of this shape."""
        self.check_work(codec.evaluations(restorations), height, width)
        self.check_other_work(codec.work(shape, restorations))
        self.check_memory(codec.memory(shape), codec.device)

    def check_memory(self, memory: int, device: torch.device | None = None) -> None:
        """Raise ``StreamError`` where so many bytes are too much for a device."""
        limit = memory_left(device) if self.memory is None else self.memory
        if memory > limit:
            raise StreamError(
                f"decoding takes about {memory / 1e9:.1f} GB of memory and {limit / 1e9:.1f} GB may be taken: if there "
                "is more, say so (--memory GB)"
            )


UNBOUNDED = Limits.of(budget=1 << 63)
"""For streams of one's own codec: memory alone is bounded."""


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


def picture_memory(height: int, width: int) -> int:
    """Bytes of an image's pixels as they are computed with: held whatever the codec is."""
    return NUMBER * 3 * height * width
