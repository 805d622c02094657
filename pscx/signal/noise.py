"""Counter-based noise: every number has an address, and no generator keeps a state."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.signal.philox import philox

DOMAIN = 0x70736378  # second word of the key, so that other users of Philox with the same seed see other bits
LEVELS = 1 << 16
GRID = 1 << 12
CHUNK = 1 << 18  # words that are drawn at once


class Noise:
    """Gaussian noise that is the same on every machine: a function of seed, iteration, sample, step and position.

    Philox4x64-10 (Salmon et al. 2011) with key ``(seed, DOMAIN)`` and counter ``(block, step, sample, iteration)``,
    lowest word first; the first block has the number 1. Each 64-bit output is cut into four 16-bit integers, lowest
    first, and each of those picks a value of :func:`quantiles`. Integers and a table: nothing is rounded on the way.
    The batch, the order of asking and the device have no part in it.

    Args:
        seed: in [0, 2^64); raises ``ValueError`` otherwise.

    >>> Noise(7).normal((2, 2), iteration=0, sample=3, step=1)
    tensor([[-0.4631, -0.2864],
            [-0.7595,  0.1707]], dtype=torch.float64)
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must lie in [0, 2^64), got {seed}")
        self.seed = seed

    def normal(
        self, shape: tuple[int, ...], *, iteration: int, sample: int, step: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Numbers of mean 0 and variance 0.99998 (see :func:`quantiles`): ``shape``, float64, made on ``device``.

        A larger shape starts with the same values in row-major order. Raises ``ValueError`` where a coordinate is
        not in [0, 2^64).
        """
        values = torch.empty(shape, dtype=torch.float64, device=device)
        self.draw(values, iteration=iteration, sample=sample, step=step)
        return values

    def draw(self, out: Tensor, *, iteration: int, sample: int, step: int) -> None:
        """Write the numbers of :meth:`normal` into a contiguous float64 tensor."""
        for name, value in (("iteration", iteration), ("sample", sample), ("step", step)):
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{name} must lie in [0, 2^64), got {value}")
        values, counter = out.view(-1), (step, sample, iteration)
        if out.device.type == "cpu":
            self._by_numpy(values.numpy(), counter)
        else:
            values.copy_(self._by_torch(len(values), counter, out.device))

    def _by_torch(self, count: int, counter: tuple[int, int, int], device: torch.device) -> Tensor:
        words = philox(-(-count // 16), counter, (self.seed, DOMAIN), device)
        places = (words[:, None] >> torch.arange(0, 64, 16, device=device)) & (LEVELS - 1)
        return table_on(device)[places.flatten()[:count]]

    def _by_numpy(self, values: NDArray[np.float64], counter: tuple[int, int, int]) -> None:
        """The same, several times as fast on a CPU."""
        key = np.array([self.seed, DOMAIN], np.uint64)
        source = np.random.Philox(key=key, counter=np.array([0, *counter], np.uint64))
        for start in range(0, len(values), 4 * CHUNK):
            part = values[start : start + 4 * CHUNK]
            words = source.random_raw(-(-len(part) // 4))
            # Indices are in range; in numpy's other mode the result would go through a buffer.
            np.take(quantiles(), words.astype("<u8", copy=False).view("<u2")[: len(part)], out=part, mode="clip")


@lru_cache(1)
def quantiles() -> NDArray[np.float64]:
    """Standard normal quantiles at ``(i + 0.5) / 65536``, ``(65536,)``, rounded to multiples of 2^-12.

    Exactly antisymmetric, at most 4.325 in magnitude, variance 0.99998, kurtosis 2.9991. The nearest quantile is
    1.7e-5 of a grid step from a tie, so the last digits of a machine's logarithm cannot change the table.
    """
    inverse = NormalDist().inv_cdf
    lower = np.array([round(inverse((i + 0.5) / LEVELS) * GRID) for i in range(LEVELS // 2)], np.float64) / GRID
    return np.concatenate([lower, -lower[::-1]])


@lru_cache(8)
def table_on(device: torch.device) -> Tensor:
    """:func:`quantiles` on a device."""
    return torch.from_numpy(quantiles()).to(device)
