"""Means and variances of a signal's blocks, learnt from images: what is known before the first measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor

from pscx.rows.base import Predictions
from pscx.rows.orthonormal import fix_signs
from pscx.signal.partition import Partition
from pscx.signal.transforms import BlockDCT, fine

MOST_CHANNELS = 64
LARGEST = 1000.0  # of a mean and of a variance
SMALLEST = 1e-6  # of a variance
ORTHONORMAL = 1e-5  # by how much products of axes may be off
DIGITS = 6  # decimals of axes and means; significant ones of variances


@dataclass(frozen=True)
class BlockStatistics:
    """First and second moments of blocks of a signal, such as latents, whose channels are on no known scale.

    Channels are turned to their principal axes, along which they do not correlate. A block's
    coefficient on an axis has a variance that depends on its radial frequency, rounded to a whole number: correlations
    are the same in all directions. Means differ by channel alone.

    Args:
        means: of the channels, ``(channels,)`` float64, in units of the signal.
        axes: orthonormal, one a row, that of the largest variance first, ``(channels, channels)`` float64.
        variances: of coefficients, by axis and radius, ``(channels, radii)`` float64, over 0.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor

    @classmethod
    def of(cls, numbers: Sequence[float], block: int) -> BlockStatistics:
        """From the means, the axes row by row and the variances axis by axis, for blocks of this side.

        Raises ``ValueError`` where they are not as many as some number of channels has, or out of range.
        """
        count = radii_of(block)
        channels = next((c for c in range(1, MOST_CHANNELS + 1) if c * (1 + c + count) == len(numbers)), 0)
        if not channels:
            four = 4 * (5 + count)
            raise ValueError(
                f"rows.statistics must be c (1 + c + {count}) numbers for c channels and blocks of {block}, as {four} "
                f"for 4 channels, got {len(numbers)}"
            )
        means, axes, variances = torch.tensor([*numbers], dtype=torch.float64).split(
            [channels, channels * channels, channels * count]
        )
        found = cls(means, axes.view(channels, channels), variances.view(channels, count))
        found.check()
        return found

    def check(self) -> None:
        """Raise ``ValueError`` where a number is out of range or the axes are not orthonormal."""
        if not bool((self.means.abs() <= LARGEST).all()):
            raise ValueError(f"means in rows.statistics must lie within ±{LARGEST:g}, got {self.means.tolist()}")
        off = float((self.axes @ self.axes.mT - torch.eye(len(self.axes), dtype=torch.float64)).abs().max())
        if not off <= ORTHONORMAL:
            raise ValueError(f"axes in rows.statistics must be orthonormal to {ORTHONORMAL}, and are off by {off:.2g}")
        least, most = float(self.variances.min()), float(self.variances.max())
        if not SMALLEST <= least <= most <= LARGEST:
            raise ValueError(
                f"variances in rows.statistics must lie in {SMALLEST}..{LARGEST:g}, got {least:g} to {most:g}"
            )

    def numbers(self) -> list[float]:
        """What :meth:`of` takes, rounded."""
        return [
            *(round(number, DIGITS) for part in (self.means, self.axes) for number in part.flatten().tolist()),
            *(float(f"{number:.{DIGITS}g}") for number in self.variances.flatten().tolist()),
        ]

    def spectrum(self, block: int) -> Tensor:
        """Variance of each coefficient of a block, ``(dim,)`` float64, ordered axis, row, column."""
        return fine(self.variances[:, radius(block)].flatten())

    def block_means(self, block: int) -> Tensor:
        """Mean of a block's coefficient of frequency 0 on each axis, ``(channels,)`` float64, to multiples of 2^-31.

        Products are added in their order: every machine has the same bits.
        """
        total = torch.zeros_like(self.means)
        for mean, column in zip(self.means, self.axes.mT, strict=True):
            total = total + mean * column
        return fine(total * block)


@dataclass(frozen=True)
class Moments:
    """Of the blocks of one image: ``mean`` ``(channels,)``, and by radius the mean products of channels' coefficients.

    ``blocks`` says how many there are; ``products`` is ``(radii, channels, channels)``. All are float64.
    """

    blocks: int
    mean: Tensor
    products: Tensor


def moments(signal: Tensor, block: int) -> Moments:
    """Those of a signal ``(channels, height, width)`` whose sides are multiples of ``block``."""
    channels, height, width = signal.shape
    transform = BlockDCT(Partition(channels, height, width, block))
    coefficients = transform.forward(signal[None].double().cpu())[0].view(-1, channels, block * block)
    at = radius(block).flatten()
    mean = coefficients[:, :, 0].mean(0) / block
    parts = [coefficients[:, :, at == one].transpose(1, 2).flatten(0, 1) for one in range(radii_of(block))]
    return Moments(len(coefficients), mean, torch.stack([part.mT @ part / len(part) for part in parts]))


def learn(seen: Sequence[Moments], block: int) -> BlockStatistics:
    """The statistics of many images, each block counted alike; variances are at least :data:`SMALLEST`."""
    weights = torch.tensor([one.blocks for one in seen], dtype=torch.float64)
    weights = weights / weights.sum()
    means = torch.einsum("n,nc->c", weights, torch.stack([one.mean for one in seen]))
    products = torch.einsum("n,nrcd->rcd", weights, torch.stack([one.products for one in seen]))
    products[0] -= block * block * means[:, None] * means
    counts = torch.bincount(radius(block).flatten(), minlength=len(products)).double()
    _, vectors = torch.linalg.eigh((products * counts[:, None, None]).sum(0))
    axes = fix_signs(vectors.mT.flip(0))
    variances = torch.einsum("ac,rcd,ad->ar", axes, products, axes)
    return BlockStatistics(means, axes, variances.clamp(SMALLEST, LARGEST))


@lru_cache
def radius(block: int) -> Tensor:
    """Distance from frequency 0, rounded to a whole number: ``(block, block)`` int64."""
    found = [[_rounded_root(row * row + column * column) for column in range(block)] for row in range(block)]
    return torch.tensor(found)


def radii_of(block: int) -> int:
    """How many radii there are."""
    return _rounded_root(2 * (block - 1) ** 2) + 1


def _rounded_root(square: int) -> int:
    """The square root, rounded to a whole number."""
    root = isqrt(square)
    return root + (square > root * (root + 1))


def at_once(mean: Tensor, variance: Tensor) -> Predictions:
    """Predictions of one group, ``(r,)`` each."""
    yield mean, variance
