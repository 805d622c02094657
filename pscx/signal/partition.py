"""Square blocks of a signal."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Partition:
    """Cuts a signal ``(channels, height, width)`` into square blocks; ``block=None`` makes it one block.

    A block is a vector of ``dim`` numbers, ordered channel, row, column; blocks are ordered as text is read.

    >>> partition = Partition(channels=3, height=32, width=48, block=16)
    >>> partition.grid, partition.count, partition.dim
    ((2, 3), 6, 768)
    """

    channels: int
    height: int
    width: int
    block: int | None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1 or none, got {self.block}")
        if self.block is not None and (self.height % self.block or self.width % self.block):
            raise ValueError(f"block {self.block} must divide the signal's sides, got {self.height}x{self.width}")

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks down and across."""
        return (1, 1) if self.block is None else (self.height // self.block, self.width // self.block)

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        """Numbers in a block."""
        return self.channels * self.height * self.width // self.count

    def split(self, signal: Tensor) -> Tensor:
        """``(n, channels, height, width)`` to ``(n, count, dim)``."""
        rows, columns = self.grid
        return rearrange(signal, "n c (y p) (x q) -> n (y x) (c p q)", y=rows, x=columns)

    def block_of(self, signal: Tensor, index: int) -> Tensor:
        """Block number ``index`` of a signal ``(channels, height, width)``, as a part of it."""
        rows, columns = self.grid
        height, width = self.height // rows, self.width // columns
        top, left = index // columns * height, index % columns * width
        return signal[:, top : top + height, left : left + width]

    def join(self, blocks: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        rows, columns = self.grid
        height, width = self.height // rows, self.width // columns
        return rearrange(blocks, "n (y x) (c p q) -> n c (y p) (x q)", y=rows, x=columns, p=height, q=width)
