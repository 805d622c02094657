"""A denoiser of large images in overlapping tiles: memory that does not grow with the image, and no seams.

Where a side is over :attr:`Tiles.limit`, it is cut into cores of nearly equal length. Each is denoised with
:attr:`Tiles.halo` pixels around it, so that a network sees past the cut, and from one core to the next the answers are
faded into each other. The grid is a function of the image's sides alone: whoever computes, alone or among many, in any
batch, takes the same tiles. Under an exact prior each operation is one of IEEE 754 on each number, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pscx.runtime.cancel import check_cancel


@dataclass(frozen=True)
class Piece:
    """A stretch ``[start, stop)`` of a side, and what its numbers weigh, ``(stop - start,)`` float64, in [0, 1]."""

    start: int
    stop: int
    weight: Tensor


@dataclass(frozen=True)
class Tiles:
    """How sides are cut; all in pixels.

    Args:
        limit: a side up to this is left whole.
        core: the longest piece of a side without its halo.
        halo: at least so much is denoised around a core, so that what is cut off hardly matters within it
            (``docs/scaling.md``).
        fade: on both sides of a cut the answers are mixed over so many pixels, a power of two and less than ``halo``.
    """

    limit: int = 1024
    core: int = 768
    halo: int = 48
    fade: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.fade < self.halo or self.fade & (self.fade - 1):
            raise ValueError(f"tiles.fade must be a power of two below tiles.halo ({self.halo}), got {self.fade}")
        if not 2 * self.halo <= self.core <= self.limit:
            raise ValueError(f"tiles.core must lie in {2 * self.halo}..{self.limit}, got {self.core}")

    def pieces(self, side: int, stride: int) -> list[Piece]:
        """The pieces of a side, a multiple of ``stride`` as all their ends are; weights add up to 1 everywhere."""
        if side <= self.limit:
            return [Piece(0, side, torch.ones(side, dtype=torch.float64))]
        count = -(-side // self.core)
        cuts = [side // stride * i // count * stride for i in range(count + 1)]
        halo = -(-self.halo // stride) * stride
        pieces = []
        for first, last in pairwise(cuts):
            start, stop = max(first - halo, 0), min(last + halo, side)
            place = torch.arange(start, stop)
            weight = torch.ones(stop - start, dtype=torch.float64)
            if first:
                weight = weight * self.ramp(place - first)
            if last < side:
                weight = weight * (1 - self.ramp(place - last))
            pieces.append(Piece(start, stop, weight))
        return pieces

    def ramp(self, distance: Tensor) -> Tensor:
        """From 0 to 1 across a cut, at whole numbers of pixels from it: multiples of a power of two."""
        return ((2 * distance.double() + 1) / (4 * self.fade) + 0.5).clamp(0, 1)

    def largest(self, height: int, width: int, stride: int) -> int:
        """Pixels of the largest tile of an image."""
        longest = [max(p.stop - p.start for p in self.pieces(side, stride)) for side in (height, width)]
        return longest[0] * longest[1]

    def denoise(self, denoise: Callable[[Tensor], Tensor], x: Tensor, stride: int) -> Tensor:
        """What ``denoise`` makes of ``x`` ``(batch, channels, height, width)``, whole or tile by tile.

        Tiles are taken as text is read, and their answers are added, each times its weight.
        """
        down, across = (self.pieces(side, stride) for side in x.shape[-2:])
        if len(down) == len(across) == 1:
            return denoise(x)
        x0 = torch.zeros_like(x)
        for rows in down:
            for columns in across:
                check_cancel()
                place = ..., slice(rows.start, rows.stop), slice(columns.start, columns.stop)
                weight = (rows.weight[:, None] * columns.weight).to(x)
                x0[place] += denoise(x[place]) * weight
        return x0
