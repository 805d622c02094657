"""How the second decoder of the path families makes the noise of a step: codebooks and what the stream says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, log, sqrt
from typing import Any

import numpy as np
from reference_decoder import Array, Noise, RangeDecoder, table

Weights = list[dict[int, float]]  # for each group, those of its atoms, by their index


class Words(RangeDecoder):
    def decision(self, p: float) -> bool:
        return super().decision(min(max(round(p * 2**20) / 2**20, 2.0**-16), 1 - 2.0**-16))

    def number(self, bits: int) -> int:
        value = 0
        while bits:
            count = min(bits, 16)
            value, bits = value << count | self.integer(count), bits - count
        return value


@dataclass
class Step:
    """``sent`` counts the atoms of the steps before; ``paid`` is the divergence of those and of this one."""

    number: int
    sent: int
    divergence: float
    paid: float


def transform(x: Array) -> Array:
    """Sylvester's Hadamard matrix times the last dimension, by the butterfly."""
    x, half = x.copy(), 1
    while half < x.shape[-1]:
        pairs = x.reshape(*x.shape[:-1], -1, 2, half)
        x = np.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], -2).reshape(x.shape)
        half *= 2
    return x


class Codebook:
    def __init__(self, noise: Noise, name: str, size: int, bits: int) -> None:
        self.noise, self.size, self.whole = noise, size, 1 << (size - 1).bit_length()
        self.hadamard = {"hadamard": True, "gaussian": False}[name]
        self.bits = min(bits, self.whole.bit_length() - 1) if self.hadamard else bits

    def sums(self, weights: Weights, step: int, atom: int, block: int) -> Array:
        """Of the atoms number ``atom`` of the groups of a block, ``(groups, size)``."""
        place = (atom << 32) + 16 * block
        if self.hadamard:
            drawn = self.noise((2, len(weights), self.whole), (1 << 32) + step, place, 0)
            d, c = np.where(drawn < 0, -1.0, 1.0)
            u = np.zeros((len(weights), self.whole))
            for group, of in enumerate(weights):
                u[group, list(of)] = list(of.values())
            spread: Array = transform(d * transform(u)) * c / sqrt(self.whole)
            return spread[:, : self.size]
        total = np.zeros((len(weights), self.size))
        for group, of in enumerate(weights):
            for index in sorted(of):
                total[group] += of[index] * self.noise((self.size,), (1 << 32) + step, place + group, index)
        return total


def scaled(x: Array) -> Array:
    """To a mean square of 1."""
    whole = np.rint(x * 4096)
    mean = (whole * whole).sum(1, keepdims=True) * (2.0**-24 / x.shape[1])
    found: Array = x / np.sqrt(np.maximum(mean, 2.0**-12))
    return found


class Sender(ABC):
    """The noise of a step, for signals of ``n`` numbers."""

    def __init__(self, words: Words, noise: Noise, spec: dict[str, Any], n: int) -> None:
        self.words, self.noise, self.spec, self.n = words, noise, spec, n
        self.order = np.argsort(noise((n,), 1 << 40, 0, 0), kind="stable")

    def cut(self, groups: int, bits: int) -> None:
        self.groups, self.size = groups, ceil(self.n / groups)
        self.book = Codebook(self.noise, self.spec["codebook"], self.size, bits)

    def joined(self, blocks: Sequence[Array]) -> Array:
        found: Array = np.empty(self.n)
        found[self.order] = np.concatenate(blocks).ravel()[: self.n]
        return found

    def after(self, p: float, error: float, placed: float) -> float:
        """The precision at the end of a step, which the schedule would place at ``placed``."""
        return placed

    @abstractmethod
    def send(self, step: Step) -> tuple[Array, int]:
        """The noise ``(n,)`` and the number of atoms."""


class Atoms(Sender):
    """``ddcm`` and ``turbo_ddcm``."""

    def __init__(self, words: Words, noise: Noise, spec: dict[str, Any], n: int) -> None:
        super().__init__(words, noise, spec, n)
        self.cut(ceil(n / 2 ** spec["group"]), spec["entries"])
        worth = table("codecs/paths/atoms", "EXTREMES")[self.book.bits]
        self.gain, self.atoms = worth * worth, spec.get("atoms")
        self.ranked = spec["name"] == "turbo_ddcm" and self.atoms is not None
        self.weight_bits = spec.get("weight_bits", 0)
        self.follows = spec["name"] == "ddcm" and spec["schedule"] == "kl"  # a step is as long as its atoms are worth

    def after(self, p: float, error: float, placed: float) -> float:
        return p + self.most * self.gain / error if self.follows else placed

    @property
    def most(self) -> int:
        """Atoms of a step that does not say how many."""
        each = 255 if self.atoms is None else min(self.atoms, 1 << self.book.bits) if self.ranked else self.atoms
        return self.groups * int(each)

    def count(self, step: Step) -> int:
        if self.atoms is None or (self.follows and not self.weight_bits):
            return min(max(round(2 * step.paid / self.gain) - step.sent, 0), self.most)
        return self.most

    def send(self, step: Step) -> tuple[Array, int]:
        count = self.count(step)
        shares = [count // self.groups] * self.groups
        for i in range(count % self.groups):
            shares[(step.sent + i) % self.groups] += 1
        form = self.ranks if self.ranked else self.pursuit if self.weight_bits else self.signed
        blocks = [form(step.number, b, shares[16 * b : 16 * b + 16]) for b in range(ceil(self.groups / 16))]
        return self.joined(blocks), count

    def signed(self, step: int, b: int, shares: list[int]) -> Array:
        total = np.zeros((len(shares), self.size))
        for k in range(max(shares)):
            weights: Weights = [{} for _ in shares]
            for group, share in enumerate(shares):
                if share > k:
                    index, minus = divmod(self.words.number(self.book.bits + 1), 2)
                    weights[group][index] = -1 if minus else 1
            total += self.book.sums(weights, step, k, b)
        for group, share in enumerate(shares):
            if share:
                total[group] *= 1 / sqrt(share)
            else:
                total[group] = self.noise((self.size,), (1 << 42) + step, 16 * b + group, 0)
        return total

    def pursuit(self, step: int, b: int, shares: list[int]) -> Array:
        def atoms() -> Array:
            return self.book.sums([{self.words.number(self.book.bits): 1.0} for _ in shares], step, 0, b)

        total = atoms()
        for _ in range(shares[0] - 1):
            other = atoms()
            w = np.array([[(self.words.number(self.weight_bits) + 1) / 2**self.weight_bits] for _ in shares])
            total = scaled(w * total + (1 - w) * other)
        return total

    def ranks(self, step: int, b: int, shares: list[int]) -> Array:
        weights, entries = [], 1 << self.book.bits
        for share in shares:
            rank = self.words.number((comb(entries, share) - 1).bit_length())
            assert rank < comb(entries, share)
            indices, below = [], entries
            for place in range(share, 0, -1):
                below = next(index for index in range(below - 1, -1, -1) if comb(index, place) <= rank)
                rank -= comb(below, place)
                indices.append(below)
            signs = self.words.number(share)
            weights.append({index: -1.0 if signs >> i & 1 else 1.0 for i, index in enumerate(indices[::-1])})
        return scaled(self.book.sums(weights, step, 0, b))


class Chunks(Sender):
    """``diffc``: one candidate a chunk; how the encoder chose it is nothing that a decoder knows."""

    def __init__(self, words: Words, noise: Noise, spec: dict[str, Any], n: int) -> None:
        super().__init__(words, noise, spec, n)
        self.counts = [[0.5, 0.5] for _ in range(64)]  # of no and yes, by the bits that come before
        self.learn(34, 4.0)

    def send(self, step: Step) -> tuple[Array, int]:
        bits = step.divergence / log(2)
        wanted = max(ceil(bits / self.spec["chunk"]), ceil(self.n / 2 ** self.spec["group"]))
        self.cut(min(wanted, max(self.n // 16, 1)), self.spec["candidates"] - 1)
        expected = min(round(bits / self.groups), 31)
        sizes = [min(self.groups - first, 16) for first in range(0, self.groups, 16)]
        return self.joined([self.block(step.number, b, size, expected) for b, size in enumerate(sizes)]), self.groups

    def block(self, step: int, b: int, size: int, expected: int) -> Array:
        total, found = np.zeros((size, self.size)), [self.candidate(expected) for _ in range(size)]
        for book in {candidate >> self.book.bits + 1 for candidate in found}:
            weights: Weights = [{} for _ in found]
            for group, candidate in enumerate(found):
                if candidate >> self.book.bits + 1 == book:
                    weights[group][candidate // 2 % (1 << self.book.bits)] = -1.0 if candidate % 2 else 1.0
            total += self.book.sums(weights, step, book, b)
        return total

    def candidate(self, expected: int) -> int:
        length = self.length() + expected - 32
        assert 0 <= length <= self.spec["candidates"]
        return length if length < 2 else 1 << length - 1 | self.words.number(length - 1)

    def length(self) -> int:
        node = 1
        for _ in range(6):
            no, yes = self.counts[node]
            node = 2 * node + self.words.decision(yes / (no + yes))
        self.learn(node - 64, 1.0)
        return node - 64

    def learn(self, value: int, weight: float) -> None:
        for place in range(5, -1, -1):
            self.counts[64 + value >> place + 1][value >> place & 1] += weight
