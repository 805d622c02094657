"""What compressing and decompressing give back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pscx.codecs import Account

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A stream, and what it cost to make: all encodings, where a target had several tried.

    ``outcome`` says what the target came to, such as a PSNR; empty where the size of the stream tells.
    """

    data: bytes
    account: Account
    outcome: str = ""


@dataclass(frozen=True)
class Decoded:
    """The restorations of a stream, ``(height, width, 3)`` uint8, and how much of it they were made from.

    ``segments`` of ``iterations`` were used; ``cut`` says why there are no more, or that the stream's checksum does not
    match although all of them decode; it is empty where the stream is whole.
    """

    images: list[Pixels]
    segments: int
    iterations: int
    cut: str


@dataclass(frozen=True)
class Simulation:
    """A stream and what its decoder would show, from one pass of the loop.

    ``images`` are the restorations, ``(height, width, 3)`` uint8; ``account`` counts the loop alone, or all encodings
    where a target had several tried. A decoder runs the same loop once, so ``decode_seconds`` is the time of the last
    encoding and of the restorations.
    """

    data: bytes
    images: list[Pixels]
    account: Account = field(repr=False)
    encode_seconds: float
    decode_seconds: float

    @property
    def pixels(self) -> Pixels:
        """The first restoration."""
        return self.images[0]
