"""Philox4x64-10, Salmon et al. 2011 (Random123), on any device of torch."""

from __future__ import annotations

import torch
from torch import Tensor

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
ROUNDS = 10
HALF = (1 << 32) - 1


def philox(blocks: int, counter: tuple[int, int, int], key: tuple[int, int], device: torch.device) -> Tensor:
    """Words number 0 to ``4 blocks - 1``, ``(4 blocks,)`` int64 that stand for their 64 bits.

    Block ``i``, from 1 on, has the counter ``(i, *counter)``, lowest word first; all words are in [0, 2^64).
    """
    first = torch.arange(1, blocks + 1, device=device)
    words = [first, *(torch.full_like(first, signed(word)) for word in counter)]
    for turn in range(ROUNDS):
        keys = [signed(word + turn * step) for word, step in zip(key, WEYL, strict=True)]
        (high0, low0), (high1, low1) = (product(words[2 * i], MULTIPLIERS[i]) for i in (0, 1))
        words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
    return torch.stack(words, 1).flatten()


def product(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The upper and the lower 64 bits of products of 64-bit integers, which are taken to have no sign."""
    above, below = factor >> 32, factor & HALF
    high, low = (words >> 32) & HALF, words & HALF
    # Each of these products is below 2^64; what it lacks of a sign does not matter to bits that are cut out of it.
    middle = high * below + (((low * below) >> 32) & HALF)
    other = low * above + (middle & HALF)
    return high * above + ((middle >> 32) & HALF) + ((other >> 32) & HALF), words * signed(factor)


def signed(word: int) -> int:
    """The int64 number with the last 64 bits of ``word``."""
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)
