"""How much work and memory a stream may ask for: known, and refused, before either is spent."""

from __future__ import annotations

from dataclasses import dataclass

from pscx.codecs.base import SignalCodec
from pscx.errors import StreamError
from pscx.runtime.memory import memory_left


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

    def check(self, codec: SignalCodec, height: int, width: int, shape: tuple[int, ...], restorations: int) -> None:
        """Raise ``StreamError`` where a codec asks for more, for an image of this size and a signal of this shape."""
        evaluations, memory = codec.evaluations(restorations), codec.memory(shape)
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
