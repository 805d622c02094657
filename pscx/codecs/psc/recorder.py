"""A record of a PSC decoding for reports: bits, samples and rows, segment by segment.

No samples are drawn beyond those of the decoder, so a replay costs as much as decoding without the restoration.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pscx.codecs.base import Recorder, Segment, SignalCodec
from pscx.codecs.pixels import shown
from pscx.codecs.psc.loop import Seal
from pscx.codecs.replay import Pattern, Replay, Step, kept
from pscx.coders.base import Coder
from pscx.quantizers.base import Quantizer
from pscx.signal.measurements import Measurements, rank_within

PATTERNS = 12  # rows that are shown


class PSCRecorder(Recorder):
    """Encodes the decoded symbols again to get the cost of each row; ``height`` and ``width`` are the image's."""

    def __init__(self, height: int, width: int, coder: Coder, quantizer: Quantizer) -> None:
        self._image, self._encoder, self._quantizer = (height, width), coder.encoder(), quantizer
        self._replay = Replay()
        self._firsts: list[tuple[int, Tensor, Tensor]] = []  # segment, block and row of each block's first rows
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._measurements: Measurements | None = None

    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        assert isinstance(segment, Seal)
        if self._measurements is None:
            self._start(codec, segment.before)
        if segment.segment > 0:
            self._look_back(codec, segment)
        self._keep_first_rows(segment)
        self._replay.steps.append(self._step(segment))

    def finish(self) -> Replay:
        """The record of all segments."""
        self._replay.payload = self._encoder.finish()
        self._replay.block = int(self._counts.argmax())
        self._replay.patterns = list(self._patterns())
        return self._replay

    def _start(self, codec: SignalCodec, measurements: Measurements) -> None:
        partition = measurements.partition
        self._measurements = measurements
        self._counts = torch.zeros(partition.count, dtype=torch.int64, device=measurements.device)
        self._replay.grid = partition.grid
        self._replay.shape = partition.channels, partition.height, partition.width
        scale = codec.stride // codec.signal_shape(codec.stride, codec.stride)[-1]
        self._replay.size = partition.height * scale, partition.width * scale

    def _look_back(self, codec: SignalCodec, seal: Seal) -> None:
        """Add the samples from which this segment's rows were chosen: they show the result of the segments before."""
        step = self._replay.steps[-1]
        if seal.samples is not None and len(seal.samples) > 1:
            step.spread = seal.samples.std(0).square().mean(0).sqrt().cpu().numpy()
        if step.segment in kept(codec.segments):
            known = seal.before
            signal = known.adjoint(known.values[None])[0] if seal.estimate is None else seal.estimate
            step.picture = shown(codec, signal, *self._image)

    def _step(self, seal: Seal) -> Step:
        """Encode the symbols again, group by group, to get the cost of each row."""
        encoder, measured = self._encoder, seal.measured
        coded = (measured.symbols, measured.mean, measured.scale)
        groups = zip(*(torch.split(part, measured.proposal.groups) for part in coded), strict=True)
        costs = [encoder.put(symbols, self._quantizer, mean, scale) for symbols, mean, scale in groups]
        bits = torch.cat([torch.zeros(0, dtype=torch.float64), *costs])
        encoder.put_bits(seal.digest, seal.bits)
        encoder.segment = seal.segment + 1
        by_block = torch.bincount(measured.proposal.block.cpu(), bits, len(self._counts))
        blocks = by_block.reshape(self._replay.grid).numpy()
        return Step(seal.segment, len(bits), float(bits.sum()), blocks, seal.bits, seal.evaluations)

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
                found.append(
                    Pattern(segment, measurements.partition.block_of(signal, self._replay.block).cpu().numpy())
                )
        return found
