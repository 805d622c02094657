"""A stream decoded for show: what each of its segments brought, from the one loop of the codec.

Nothing is drawn beyond what a decoder draws anyway, so a replay costs what decoding costs, less the restoration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.api import Decompressor
from pscx.codecs.psc.codec import PSC, Seal
from pscx.coders import Encoder
from pscx.exact import ordered_mean
from pscx.rate_control.trials import Pixels, shown
from pscx.runtime.progress import Bar
from pscx.signal.measurements import Measurements, rank_within

FRAMES = 32  # at most so many pictures of a stream
PATTERNS = 12  # rows that are shown

Map = NDArray[np.float64]


@dataclass
class Step:
    """One segment. ``bits`` are the ideal bits of its rows, ``block_bits`` the same by block, ``(down, across)``, and
    ``sealing`` those of its digest.

    What the segments up to here came to is seen when the loop next draws samples. ``picture`` is their mean, or ``H^T
    y`` where none were drawn; ``spread`` their standard deviation, ``(height, width)`` of the signal, root mean square
    over its channels, or none of a single sample. After the last segment there is neither, and no picture of those
    that are too many to be shown.
    """

    segment: int
    rows: int
    bits: float
    block_bits: Map
    sealing: int
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
    padding. ``payload`` is what the decoded symbols encode to again: that of the stream.
    """

    steps: list[Step] = field(default_factory=list)
    patterns: list[Pattern] = field(default_factory=list)
    block: int = 0
    grid: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (1, 1)
    shape: tuple[int, ...] = ()
    payload: bytes = b""

    @property
    def bits(self) -> float:
        """Ideal bits of all rows."""
        return sum(step.bits for step in self.steps)

    @property
    def in_pixels(self) -> bool:
        """Whether the signal is the image itself, not a latent."""
        return self.shape[0] == 3 and self.shape[1:] == self.size


def replay(decompressor: Decompressor, data: bytes, bar: Bar | None = None) -> Replay:
    """Decode a stream and keep what is worth seeing. Raises ``StreamError`` as decoding does."""
    facts = decompressor.info(data)
    recorder = Recorder(facts["height"], facts["width"])
    decompressor.decode(data, range(0), progress=None if bar is None else bar.advance, watch=recorder)
    return recorder.finish()


class Recorder:
    """What watches a decoder (:data:`pscx.codecs.psc.codec.Watch`); ``height`` and ``width`` are those of the image."""

    def __init__(self, height: int, width: int) -> None:
        self._image = height, width
        self._replay = Replay()
        self._encoder: Encoder | None = None
        self._firsts: list[tuple[int, Tensor, Tensor]] = []  # segment, block and row of each block's first rows
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._measurements: Measurements | None = None

    def __call__(self, psc: PSC, seal: Seal) -> None:
        if self._encoder is None:
            self._start(psc, seal.before)
        if seal.segment > 0:
            self._look_back(psc, seal)
        self._keep_first_rows(seal)
        self._replay.steps.append(self._step(psc, seal))

    def finish(self) -> Replay:
        """All that was seen."""
        assert self._encoder is not None
        self._replay.payload = self._encoder.finish()
        self._replay.block = int(self._counts.argmax())
        self._replay.patterns = list(self._patterns())
        return self._replay

    def _start(self, psc: PSC, measurements: Measurements) -> None:
        partition = measurements.partition
        self._encoder, self._measurements = psc.coder.encoder(), measurements
        self._counts = torch.zeros(partition.count, dtype=torch.int64)
        self._replay.grid = partition.grid
        self._replay.shape = partition.channels, partition.height, partition.width
        scale = psc.prior.stride // psc.prior.signal_shape(psc.prior.stride, psc.prior.stride)[-1]
        self._replay.size = partition.height * scale, partition.width * scale

    def _look_back(self, psc: PSC, seal: Seal) -> None:
        """The samples that chose this segment's rows are what the segments before it came to."""
        step = self._replay.steps[-1]
        if seal.samples is not None and len(seal.samples) > 1:
            step.spread = seal.samples.std(0).square().mean(0).sqrt().numpy()
        if step.segment in kept(psc.iterations):
            known = seal.before
            signal = known.adjoint(known.values[None])[0] if seal.samples is None else ordered_mean([seal.samples])
            step.picture = shown(psc, signal, *self._image)

    def _step(self, psc: PSC, seal: Seal) -> Step:
        """Encode the symbols again, group by group, for what each row costs."""
        encoder, measured = self._encoder, seal.measured
        assert encoder is not None
        groups = zip(*(torch.split(t, measured.proposal.groups) for t in _coded(seal)), strict=True)
        costs = [encoder.put(symbols, psc.quantizer, mean, scale) for symbols, mean, scale in groups]
        bits = torch.cat([torch.zeros(0, dtype=torch.float64), *costs])
        encoder.put_bits(seal.digest, seal.bits)
        encoder.segment = seal.segment + 1
        by_block = torch.bincount(measured.proposal.block, bits, len(self._counts))
        return Step(seal.segment, len(bits), float(bits.sum()), by_block.reshape(self._replay.grid).numpy(), seal.bits)

    def _keep_first_rows(self, seal: Seal) -> None:
        block, rows = seal.measured.proposal.block, seal.measured.proposal.rows
        first = self._counts[block] + rank_within(block) < PATTERNS
        self._firsts.append((seal.segment, block[first], rows[first].clone()))
        self._counts += torch.bincount(block, minlength=len(self._counts))

    def _patterns(self) -> Sequence[Pattern]:
        measurements = self._measurements
        assert measurements is not None
        found = []
        for segment, block, rows in self._firsts:
            for index in torch.nonzero(block == self._replay.block).ravel():
                signal = measurements.signals(block[index : index + 1], rows[index : index + 1])[0]
                found.append(Pattern(segment, measurements.partition.block_of(signal, self._replay.block).numpy()))
        return found


def kept(segments: int) -> set[int]:
    """The segments, from 0, that have a picture: all, or :data:`FRAMES` at equal distances, the last among them."""
    count = min(segments, FRAMES)
    return {segments * (index + 1) // count - 1 for index in range(count)}


def _coded(seal: Seal) -> tuple[Tensor, Tensor, Tensor]:
    return seal.measured.symbols, seal.measured.mean, seal.measured.scale
