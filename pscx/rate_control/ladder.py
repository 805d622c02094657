"""The parameters that a stream can carry, in order of quality."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Ladder:
    """All bfloat16 numbers from ``coarsest`` to ``finest``, both positive: position 0 is the coarsest.

    Positive numbers of one format rise as the integers of the same bits do, so that 128 positions are one octave and a
    position is nearly the logarithm of its parameter.
    """

    coarsest: float
    finest: float

    def __len__(self) -> int:
        return abs(_bits(self.finest) - _bits(self.coarsest)) + 1

    def __getitem__(self, position: int) -> float:
        if not 0 <= position < len(self):
            raise IndexError(f"position must lie in 0..{len(self) - 1}, got {position}")
        return _number(_bits(self.coarsest) + (position if self.finest > self.coarsest else -position))

    def position(self, parameter: float) -> int:
        """The position of a parameter; of what lies beyond an end, that end."""
        low, high = sorted((self.coarsest, self.finest))
        return abs(_bits(min(max(parameter, low), high)) - _bits(self.coarsest))


def _bits(number: float) -> int:
    return int.from_bytes(struct.pack(">f", number)[:2], "big")


def _number(bits: int) -> float:
    value: float = struct.unpack(">f", bits.to_bytes(2, "big") + bytes(2))[0]
    return value
