"""A picture of the first rows of the transform that PSC chose, for the block in the middle."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pscx.codecs.base import Patterns, Segment, SignalCodec
from pscx.codecs.pixels import Pixels
from pscx.codecs.psc.loop import Seal
from pscx.images import pattern_pixels

PATTERNS = 12  # rows of the transform in a picture
SIDE = 64  # least pixels a side of each of them
GAP, BETWEEN = 4, 64  # pixels between them, and how bright these are


class FirstRows(Patterns):
    """Watches an encoder and keeps the first rows of the block in the middle."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        assert isinstance(segment, Seal)
        seal = segment
        if seal.segment == 0:  # another trial
            self.rows = []
        known, proposal = seal.before, seal.measured.proposal
        down, across = known.partition.grid
        middle = down // 2 * across + across // 2
        for index in torch.nonzero(proposal.block == middle).ravel()[: PATTERNS - len(self.rows)]:
            signal = known.signals(proposal.block[index : index + 1], proposal.rows[index : index + 1])[0]
            self.rows.append(known.partition.block_of(signal, middle).cpu().clone())

    def picture(self) -> Pixels | None:
        """The rows side by side, drawn by :func:`pscx.images.pattern_pixels`; none if there were no rows."""
        if not self.rows:
            return None
        tiles = [_tile(row) for row in self.rows]
        columns = min(len(tiles), 6)
        height, width = tiles[0].shape[0] + GAP, tiles[0].shape[1] + GAP
        sheet = np.full((-(-len(tiles) // columns) * height - GAP, columns * width - GAP, 3), BETWEEN, np.uint8)
        for place, tile in enumerate(tiles):
            top, left = place // columns * height, place % columns * width
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        return sheet


def _tile(row: Tensor) -> Pixels:
    """A row ``(channels, height, width)`` as a picture, enlarged so that no side is below :data:`SIDE`."""
    tile = pattern_pixels(row.numpy())
    times = -(-SIDE // min(tile.shape[:2]))
    return tile.repeat(times, 0).repeat(times, 1)
