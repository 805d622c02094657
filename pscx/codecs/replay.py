"""What a decoding brought, segment by segment: what a report shows of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FRAMES = 32  # at most so many pictures of a stream

Map = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass
class Step:
    """One segment. ``bits`` are the ideal bits of its rows, ``block_bits`` the same by block, ``(down, across)``, and
    ``sealing`` those of its checksum; ``evaluations`` are the denoiser evaluations (NFE) of its samples.

    ``picture`` and ``spread`` show the result of all segments so far, by the samples that are drawn for the next one.
    ``picture`` is their mean, or ``H^T y`` if none are drawn. ``spread`` is their standard deviation, ``(height,
    width)`` of the signal, root mean square over channels; none for a single sample. The last segment has neither, and
    segments that are not :func:`kept` have no picture.
    """

    segment: int
    rows: int
    bits: float
    block_bits: Map
    sealing: int
    evaluations: int = 0
    picture: Pixels | None = None
    spread: Map | None = None


@dataclass(frozen=True)
class Pattern:
    """A row of the transform as a picture of its block, ``(channels, height, width)``, and its segment, from 0."""

    segment: int
    row: Map


@dataclass
class Replay:
    """All segments of a stream, and the first rows of that block, number ``block``, that has the most of them.

    ``grid`` is that of the blocks, ``shape`` that of the signal, ``size`` the ``(height, width)`` of the image with its
    padding. ``payload`` is what the decoded symbols encode to again: that of the stream. ``restored`` are pictures by
    the restorations that were asked for.
    """

    steps: list[Step] = field(default_factory=list)
    patterns: list[Pattern] = field(default_factory=list)
    block: int = 0
    grid: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (1, 1)
    shape: tuple[int, ...] = ()
    payload: bytes = b""
    restored: list[Pixels] = field(default_factory=list)

    @property
    def bits(self) -> float:
        """Ideal bits of all rows."""
        return sum(step.bits for step in self.steps)

    @property
    def in_pixels(self) -> bool:
        """Whether the signal is the image itself, not a latent."""
        return self.shape[0] == 3 and self.shape[1:] == self.size


def kept(segments: int) -> set[int]:
    """The segments, from 0, that have a picture: all, or :data:`FRAMES` at equal distances, the last among them."""
    count = min(segments, FRAMES)
    return {segments * (index + 1) // count - 1 for index in range(count)}
