"""Closed forms on a Gaussian model, written from the formulas alone: dense matrices, float64, no code of pscx."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Normal:
    """A Gaussian distribution: ``mean`` ``(n,)`` and ``covariance`` ``(n, n)``."""

    mean: Tensor
    covariance: Tensor


def posterior(covariance: Tensor, rows: Tensor, values: Tensor, variances: Tensor) -> Normal:
    """Of ``x ~ N(0, C)`` given ``values = rows x + noise`` of these variances: ``(r, n)``, ``(r,)``, ``(r,)``."""
    cross = covariance @ rows.T
    inner = rows @ cross + torch.diag(variances)
    gain = torch.linalg.solve(inner, cross.T).T
    return Normal(gain @ values, covariance - gain @ cross.T)


def wiener(covariance: Tensor, a: Tensor) -> Tensor:
    """Matrix of ``E[x0 | x_t]`` for ``x_t = sqrt(a) x0 + sqrt(1 - a) z``: ``sqrt(a) C (a C + (1 - a) I)^-1``."""
    eye = torch.eye(len(covariance), dtype=torch.float64)
    matrix: Tensor = torch.linalg.solve(a * covariance + (1 - a) * eye, a.sqrt() * covariance)
    return matrix


def nearest(levels: list[float], wanted: float) -> int:
    """Index of the level nearest to the wanted one."""
    return min(range(len(levels)), key=lambda i: abs(levels[i] - wanted))


def visited(grid: Tensor, start: float | None, stop: float, steps: int, spacing: str) -> list[float]:
    """Noise levels of a sampler under a prior that takes any, evenly spaced in their logarithm or along the grid."""
    levels = grid.tolist()
    if spacing == "linear":
        return [levels[place] for place in visited_places(grid, start, stop, steps, spacing)]
    high, low = (min(max(level, levels[0]), levels[-1]) for level in (levels[-1] if start is None else start, stop))
    shares = [i / max(steps - 1, 1) for i in range(steps)]
    return [high ** (1 - share) * low**share for share in shares]


def visited_places(grid: Tensor, start: float | None, stop: float, steps: int, spacing: str) -> list[int]:
    """Places of a sampler's levels under a prior that takes those of its grid alone."""
    levels = grid.tolist()
    first = len(levels) - 1 if start is None else nearest(levels, start)
    last = nearest(levels, stop)
    shares = [i / max(steps - 1, 1) for i in range(steps)]
    if spacing == "linear":
        times = [round(first + share * (last - first)) for share in shares]
    else:
        times = [nearest(levels, levels[first] ** (1 - share) * levels[last] ** share) for share in shares]
    return sorted(set(times), reverse=True)


def root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    return found


def wasserstein(one: Normal, two: Normal) -> float:
    """2-Wasserstein distance of two Gaussians (Givens and Shortt 1984)."""
    half = root(one.covariance)
    cross = torch.linalg.eigvalsh(half @ two.covariance @ half).clamp_min(0).sqrt().sum()
    spread = one.covariance.trace() + two.covariance.trace() - 2 * cross
    return float(((one.mean - two.mean).square().sum() + spread.clamp_min(0)).sqrt())


def rate(spectrum: Tensor, distortion: float) -> float:
    """Rate-distortion function in bits of a Gaussian vector with this spectrum, by reverse water-filling.

    ``distortion`` is the squared error of the whole vector (Cover and Thomas 2006, theorem 10.3.3).
    """
    low, high = 0.0, float(spectrum.max())
    for _ in range(100):
        level = (low + high) / 2
        low, high = (level, high) if float(spectrum.clamp_max(level).sum()) < distortion else (low, level)
    return float(0.5 * (spectrum / low).log2().clamp_min(0).sum())


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices of these sizes are many times faster on one thread than on two that share the cores with others.

    Processes that a test starts inherit it, as floating-point sums depend on the number of threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)
