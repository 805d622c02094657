"""Codebooks of noise vectors that both sides make from a seed; what is sent is an index.

A codebook belongs to a :class:`Place`: a step of the path, and the number of an atom within it. All groups of a signal
have codebooks of their own. An atom has ``size`` numbers of mean 0 and variance 1, the same bits on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from pscx.exact.roots import square_root
from pscx.registry import choices
from pscx.signal.noise import Noise

AT_ONCE = 1 << 20  # numbers of Gaussian atoms that are held at once
FACTOR = 5  # bits of a factor of a Hadamard transform, at most
STEPS = 1 << 32  # noise index of the first step
NAMES = ("gaussian", "hadamard")


BLOCK = 16  # groups that are coded at once

Weights: TypeAlias = Sequence[Mapping[int, float]]
"""Whole-numbered weights of the atoms of each group, by their index; those of all others are zero."""


@dataclass(frozen=True)
class Place:
    """Which codebooks: of a step and the number of an atom in it, for a ``block`` of :data:`BLOCK` groups."""

    step: int
    atom: int = 0
    block: int = 0

    @property
    def sample(self) -> int:
        """The noise index of the first group."""
        return self.atom << 32 | self.block * BLOCK


class Codebook(ABC):
    """Codebooks of ``entries`` atoms for groups of ``size`` numbers."""

    def __init__(self, noise: Noise, size: int, entries: int) -> None:
        self.noise, self.size, self.entries = noise, size, entries

    @abstractmethod
    def scores(self, target: Tensor, place: Place) -> Tensor:
        """Inner products of each group's target ``(groups, size)`` with its atoms, ``(groups, entries)``.

        Only an encoder asks for them; their last digits may differ from machine to machine.
        """

    @abstractmethod
    def sums(self, weights: Weights, place: Place, device: torch.device) -> Tensor:
        """Sums of atoms, bit-exact, ``(groups, size)`` on a device."""


class GaussianCodebook(Codebook):
    """Independent Gaussian atoms (Ohayon et al., ICML 2025)."""

    def scores(self, target: Tensor, place: Place) -> Tensor:
        found = torch.empty(len(target), self.entries, dtype=torch.float64, device=target.device)
        step = max(1, AT_ONCE // self.size)
        for group, one in enumerate(target):
            for first in range(0, self.entries, step):
                entries = range(first, min(first + step, self.entries))
                atoms = torch.stack([self._atom(place, group, entry, one.device) for entry in entries])
                found[group, first : first + len(atoms)] = atoms @ one
        return found

    def sums(self, weights: Weights, place: Place, device: torch.device) -> Tensor:
        found = torch.zeros(len(weights), self.size, dtype=torch.float64, device=device)
        for group, atoms in enumerate(weights):
            for entry in sorted(atoms):
                found[group] += atoms[entry] * self._atom(place, group, entry, device)
        return found

    def _atom(self, place: Place, group: int, entry: int, device: torch.device) -> Tensor:
        where = {"iteration": STEPS + place.step, "sample": place.sample + group, "step": entry}
        return self.noise.normal((self.size,), **where, device=device)


class HadamardCodebook(Codebook):
    """Columns of ``S H R H / sqrt(n)``: signs, Hadamard transform, signs, Hadamard transform.

    ``n`` is the least power of two that is not below ``size``, ``H`` has entries of ±1, and ``R`` and ``S`` are random
    signs, drawn anew for each place and group. All atoms cost two transforms. Before the division by ``sqrt(n)`` they
    are integers, whose sums are exact in float64.
    """

    def __init__(self, noise: Noise, size: int, entries: int) -> None:
        super().__init__(noise, size, entries)
        self._padded = padded(size)
        if entries > self._padded:
            raise ValueError(f"a Hadamard codebook of {self._padded} numbers has no {entries} entries")

    def scores(self, target: Tensor, place: Place) -> Tensor:
        inner, outer = self._signs(place, len(target), target.device)
        spread = hadamard(functional.pad(target, (0, self._padded - self.size)) * outer)
        found: Tensor = hadamard(spread * inner)[:, : self.entries] * self._padded**-0.5
        return found

    def sums(self, weights: Weights, place: Place, device: torch.device) -> Tensor:
        inner, outer = self._signs(place, len(weights), device)
        dense = torch.zeros(len(weights), self._padded, dtype=torch.float64)
        for group, atoms in enumerate(weights):
            dense[group, list(atoms)] = torch.tensor(list(atoms.values()), dtype=torch.float64)
        spread = hadamard(dense.to(device)) * inner
        root = square_root(torch.full((), float(self._padded), dtype=torch.float64)).to(device)
        found: Tensor = (hadamard(spread) * outer / root)[:, : self.size]
        return found

    def _signs(self, place: Place, groups: int, device: torch.device) -> Tensor:
        """Inner and outer signs of all groups, ``(2, groups, n)``."""
        shape, iteration = (2, groups, self._padded), STEPS + place.step
        noise = self.noise.normal(shape, iteration=iteration, sample=place.sample, step=0, device=device)
        return torch.where(noise < 0, -1.0, 1.0).double()


def codebook(name: str, noise: Noise, size: int, entries: int) -> Codebook:
    """The codebook of that name, with at most ``entries`` atoms: one of Hadamard columns has no more than these."""
    if name == "hadamard":
        return HadamardCodebook(noise, size, min(entries, padded(size)))
    return GaussianCodebook(noise, size, entries)


def check_codebook(name: str) -> None:
    """Raise ``ValueError`` where there is no codebook of that name."""
    if name not in NAMES:
        raise ValueError(f"unknown codebook '{name}'{choices(name, NAMES)}")


def padded(size: int) -> int:
    """The least power of two that is not below ``size``."""
    return 1 << (size - 1).bit_length()


def hadamard(vectors: Tensor) -> Tensor:
    """``H v`` of each of ``(groups, n)``, ``n`` a power of two: products with small matrices, one after the other.

    Integers whose magnitudes add up to less than 2^53 have exact results.
    """
    size, found = vectors.shape[-1], vectors
    bits = size.bit_length() - 1
    parts = -(-bits // FACTOR) or 1
    for part in range(parts):
        side = 1 << (bits * (part + 1) // parts - bits * part // parts)
        # The last factor of the place is transformed and becomes the first, so that all are in their order at the end.
        found = (found.reshape(-1, size // side, side) @ sylvester(side).to(vectors.device)).mT
    return found.reshape(vectors.shape)


@lru_cache
def sylvester(size: int) -> Tensor:
    """Sylvester's Hadamard matrix, ``(size, size)`` float64 of ±1."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix
