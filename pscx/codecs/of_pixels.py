"""What families of codecs share that code the image itself, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from pscx.codecs.base import Recorder, Segment, SignalCodec
from pscx.codecs.pixels import padded, shown
from pscx.codecs.replay import Replay, Step, kept
from pscx.codecs.turned import NumberCodec

PER_NUMBER = 32  # bytes: pixels, the image in float32 and float64, and a copy
NO_WEIGHTS = bytes(6)
"""Fingerprint of a codec without weights."""


@dataclass(frozen=True)
class SizedSegment(Segment):
    """A segment of ``bits`` bits in the payload."""

    bits: float


class SizeRecorder(Recorder):
    """Records the bits of each segment and the estimates between; ``height`` and ``width`` are the image's."""

    def __init__(self, codec: SignalCodec, height: int, width: int) -> None:
        size = padded(codec, height, width)
        self._image, self._replay = (height, width), Replay(size=size, shape=codec.signal_shape(*size))

    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        assert isinstance(segment, SizedSegment)
        if segment.estimate is not None and segment.segment - 1 in kept(codec.segments):
            self._replay.steps[-1].picture = shown(codec, segment.estimate, *self._image)
        self._replay.steps.append(Step(segment.segment, 0, segment.bits, np.full((1, 1), segment.bits), 0))

    def finish(self) -> Replay:
        return self._replay


class PixelCodec(NumberCodec):
    """A codec of images of any size, ``(3, height, width)``, without a network.

    Rate control changes a number, the option :attr:`turned`. A watcher is shown each segment as a
    :class:`SizedSegment`.
    """

    @property
    def stride(self) -> int:
        return 1

    def to_signal(self, image: Tensor) -> Tensor:
        return image

    def to_image(self, signal: Tensor) -> Tensor:
        return signal

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height, width)

    def fingerprint(self) -> bytes:
        return NO_WEIGHTS

    def evaluations(self, restorations: int) -> int:
        return 0

    def memory(self, shape: tuple[int, ...]) -> int:
        return PER_NUMBER * prod(shape)

    def recorder(self, height: int, width: int) -> SizeRecorder:
        return SizeRecorder(self, height, width)
