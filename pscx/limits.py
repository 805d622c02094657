"""How much work and memory a stream may ask for: known, and refused, before either is spent."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pscx.codec import PSC
from pscx.errors import StreamError
from pscx.memory import memory_left
from pscx.spread import micro_batch

NUMBER = 8  # bytes of a float64
STATES = 4  # copies of the signals of a micro-batch that a sampler holds


@dataclass(frozen=True)
class Limits:
    """Bounds on what decoding one stream may take.

    Args:
        evaluations: of the denoiser for one signal, over all samples, steps and iterations and the restorations: the
            work for each pixel. The published method takes 205,000, and twice as many with a caption.
        pixel_evaluations: the same times the image's pixels.
        memory: bytes held at once, as far as the codec's parts foretell; none for all that is left to this process.
    """

    evaluations: int = 1 << 20
    pixel_evaluations: int = 1 << 40
    memory: int | None = None

    def check(self, psc: PSC, height: int, width: int, shape: tuple[int, ...], restorations: int) -> None:
        """Raise ``StreamError`` where a codec asks for more, for an image of this size and a signal of this shape."""
        evaluations, memory = evaluations_of(psc, restorations), memory_of(psc, shape)
        pixel_evaluations = evaluations * height * width
        limit = memory_left() if self.memory is None else self.memory
        if evaluations > self.evaluations:
            raise StreamError(f"the stream asks for {evaluations} denoiser evaluations, over {self.evaluations}")
        if pixel_evaluations > self.pixel_evaluations:
            raise StreamError(
                f"the stream asks for {evaluations} denoiser evaluations of {height * width} pixels, together over "
                f"{self.pixel_evaluations}"
            )
        if memory > limit:
            raise StreamError(
                f"decoding takes about {memory / 1e9:.1f} GB of memory and {limit / 1e9:.1f} GB may be taken: if there "
                "is more, say so (--memory GB)"
            )


def evaluations_of(psc: PSC, restorations: int) -> int:
    """Denoiser evaluations of one signal for a loop and so many restorations, at most."""
    loop = psc.iterations * (psc.samples * psc.sampler.evaluations + psc.rows.evaluations)
    return psc.prior.evaluations * (loop + restorations * psc.restoration.draws * psc.restoration_sampler.evaluations)


def memory_of(psc: PSC, shape: tuple[int, ...]) -> int:
    """Bytes that a loop over signals of this shape and its restoration hold at once, roughly."""
    batch = micro_batch(psc.prior, shape, min(psc.batch, max(psc.samples, psc.restoration.draws)))
    loop = NUMBER * prod(shape) * STATES * batch
    return loop + psc.prior.memory(shape, batch) + psc.rows.memory(shape, psc.samples, psc.iterations)
