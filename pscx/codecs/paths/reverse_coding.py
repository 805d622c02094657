"""Reverse channel coding: sending a sample of a Gaussian whose mean only the encoder knows."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.codecs.paths.codebooks import BLOCK, Codebook, Place
from pscx.codecs.paths.groups import Groups
from pscx.codecs.paths.sides import Adaptive, Side
from pscx.codecs.paths.walk import Sent, Step

DEPTH = 6  # bits of the number that stands for an index's length
MIDDLE = 1 << (DEPTH - 1)
WEIGHT = 4.0  # of the first guess at that length
ORDERS = 0x70736379  # second word of the key of the encoder's random order


@dataclass(frozen=True)
class Chunks:
    """Chunks of a signal, each sent as the index of one of ``2^bits`` candidates.

    Candidates are the atoms of ``books`` codebooks, with both signs.
    """

    groups: Groups
    codebook: Codebook
    books: int

    @property
    def bits(self) -> int:
        """Bits of an index of equally likely candidates."""
        return (2 * self.books * self.codebook.entries - 1).bit_length()


class OrderedCoding:
    """Ordered random coding (Theis and Yosri, ICML 2022) of chunks, for the samples of DiffC.

    A candidate is standard normal noise ``z``, and its weight is the density ratio ``w = exp(t z - t^2 / 2)`` of the
    Gaussian with the target ``t`` as its mean. With sorted exponential variables ``s``, smallest first, the candidate
    with the least ``s / w`` is sent: small indices are likely. The length of the index in bits is coded adaptively,
    relative to the predicted divergence; its other bits are equally likely.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lengths = Adaptive(DEPTH, MIDDLE + 2, WEIGHT)

    def send(self, side: Side, step: Step, chunks: Chunks) -> Sent:
        """Write or read the index of each chunk."""
        groups = chunks.groups
        expected = min(round(step.nats / log(2) / groups.groups), MIDDLE - 1)
        target = None if step.target is None else groups.split(step.target)
        parts = []
        for first in range(0, groups.groups, BLOCK):
            place, count = Place(step.number, 0, first // BLOCK), min(BLOCK, groups.groups - first)
            picks = [0] * count if target is None else self._picks(target[first : first + BLOCK], place, chunks)
            found = [self._index(side, pick, expected, chunks.bits) for pick in picks]
            parts.append(_candidates(found, place, chunks))
        return Sent(groups.join(torch.cat(parts), step.shape), groups.groups)

    def _index(self, side: Side, index: int, expected: int, bits: int) -> int:
        """Write or read an index of at most ``bits`` bits."""
        length = self._lengths.code(side, min(index.bit_length() - expected + MIDDLE, 2 * MIDDLE - 1))
        length = min(max(length + expected - MIDDLE, 0), bits)
        if length < 2:
            return length
        top = 1 << (length - 1)
        return top | side.number(index & (top - 1), length - 1)

    def _picks(self, target: Tensor, place: Place, chunks: Chunks) -> list[int]:
        """The candidate of each chunk; only an encoder asks."""
        count = 2 * chunks.codebook.entries
        orders = [self._order(place, group, count * chunks.books) for group in range(len(target))]
        best, keys = [0] * len(target), [-np.inf] * len(target)
        for book in range(chunks.books):
            scores = chunks.codebook.scores(target, Place(place.step, book, place.block))
            both = torch.stack([scores, -scores], 2).flatten(1).cpu().numpy()
            for group, order in enumerate(orders):
                found = both[group] + order[book * count : (book + 1) * count]
                pick = int(found.argmax())
                if found[pick] > keys[group]:
                    best[group], keys[group] = book * count + pick, float(found[pick])
        return best

    def _order(self, place: Place, group: int, count: int) -> NDArray[np.float64]:
        """``-log s`` of ``count`` sorted exponential variables ``s``, smallest first."""
        counter = np.array([0, place.step, place.sample + group, 0], np.uint64)
        key = np.array([self._seed, ORDERS], np.uint64)
        draws = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_exponential(count)
        order: NDArray[np.float64] = -np.log(np.cumsum(draws / np.arange(count, 0, -1)))
        return order


def chunk_count(nats: float, count: int, bits: float, group: int) -> int:
    """How many chunks ``count`` numbers are cut into: of at most ``bits`` bits each and ``2^group`` numbers."""
    wanted = max(ceil(nats / log(2) / bits), -(-count // (1 << group)))
    return min(wanted, most_chunks(count))


def most_chunks(count: int) -> int:
    """The most chunks that ``count`` numbers are cut into."""
    return max(count // 16, 1)


def _candidates(indices: list[int], place: Place, chunks: Chunks) -> Tensor:
    """The candidates with these indices, one for each chunk of a block."""
    entries, device = chunks.codebook.entries, chunks.groups.order.device
    total = torch.zeros(len(indices), chunks.groups.size, dtype=torch.float64, device=device)
    for book in sorted({index // (2 * entries) for index in indices}):
        weights = [
            {index % (2 * entries) >> 1: -1.0 if index & 1 else 1.0} if index // (2 * entries) == book else {}
            for index in indices
        ]
        total += chunks.codebook.sums(weights, Place(place.step, book, place.block), device)
    return total
