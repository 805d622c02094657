"""Closed forms on a Gaussian model, written from the formulas alone: dense matrices, float64, no code of pscx."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

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
    return torch.linalg.solve(a * covariance + (1 - a) * eye, a.sqrt() * covariance)


def nearest(levels: list[float], wanted: float) -> int:
    """Index of the level nearest to the wanted one."""
    return min(range(len(levels)), key=lambda i: abs(levels[i] - wanted))


def visited(alphas: Tensor, start: float | None, stop: float, steps: int, spacing: str) -> list[int]:
    """Step numbers of a sampler, from noise level ``start`` to ``stop``, evenly spaced in step number or log level."""
    levels = [((1 - float(a)) / float(a)) ** 0.5 for a in alphas]
    first = len(levels) - 1 if start is None else nearest(levels, start)
    last = nearest(levels, stop)
    shares = [i / max(steps - 1, 1) for i in range(steps)]
    if spacing == "linear":
        times = [round(first + share * (last - first)) for share in shares]
    else:
        times = [nearest(levels, levels[first] ** (1 - share) * levels[last] ** share) for share in shares]
    return sorted(set(times), reverse=True)


Step: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""One step of a linear sampler: matrix ``(n, n)``, offset ``(n,)`` and variance of the fresh noise ``()``."""


def follow(start: Normal, steps: Iterable[Step]) -> Normal:
    """Distribution of the state after all steps."""
    mean, spread = start.mean, start.covariance
    for matrix, offset, fresh in steps:
        mean = matrix @ mean + offset
        spread = matrix @ spread @ matrix.T + fresh * torch.eye(len(mean), dtype=torch.float64)
    return Normal(mean, spread)


def beginning(a: Tensor, rows: Tensor, values: Tensor, gain: Tensor, origin: Tensor | None = None) -> Normal:
    """``sqrt(a) x0 + sqrt(1 - a) z`` where ``x0`` is ``origin``, or zero, corrected by ``rows^T gain (y - H x0)``."""
    eye = torch.eye(rows.shape[1], dtype=torch.float64)
    guess = torch.zeros(len(eye), dtype=torch.float64) if origin is None else origin
    return Normal(a.sqrt() * (guess + rows.T @ (gain * (values - rows @ guess))), (1 - a) * eye)


def with_next(alphas: Tensor, times: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Signal variance at each visited step and at the one after it; 1 after the last."""
    shares = [*(alphas[t] for t in times), torch.ones((), dtype=torch.float64)]
    return pairwise(shares)


def sampler(
    covariance: Tensor,
    alphas: Tensor,
    times: list[int],
    eta: float,
    rows: Tensor,
    values: Tensor,
    gains: list[Tensor],
    origin: Tensor | None = None,
    inner: list[list[int]] | None = None,
) -> Normal:
    """What a denoise, project, renoise sampler draws under ``N(0, C)``, by its linear recursion.

    ``gains`` holds the weights ``(r,)`` of the measurements: of the start, then of each step in ``times``. The clean
    signal is the Wiener filter's, or with ``inner`` that of a solver that visits these steps.
    """
    eye = torch.eye(len(covariance), dtype=torch.float64)

    def steps() -> Iterator[Step]:
        for i, (a, b) in enumerate(with_next(alphas, times)):
            project, offset = eye - rows.T @ torch.diag(gains[i + 1]) @ rows, rows.T @ (gains[i + 1] * values)
            clean = project @ (wiener(covariance, a) if inner is None else solver(covariance, alphas[inner[i]]))
            kept = ((1 - b) * (1 - eta**2) / (1 - a)).sqrt()
            matrix = b.sqrt() * clean + kept * (eye - a.sqrt() * clean)
            yield matrix, (b.sqrt() - kept * a.sqrt()) * offset, (1 - b) * eta**2

    return follow(beginning(alphas[times[0]], rows, values, gains[0], origin), steps())


def solver(covariance: Tensor, shares: Tensor) -> Tensor:
    """Matrix of a second-order multistep solver over signal variances ``shares``, then one denoising.

    In the coordinates of Karras et al. 2022 (EDM): ``u = x / sqrt(a)`` at noise level ``s`` obeys
    ``d u / d log s = u - D(u)``, and ``D`` is taken linear in ``log s`` through its last two values, at the middle.
    """
    levels = ((1 - shares) / shares).sqrt()
    u = torch.eye(len(covariance), dtype=torch.float64) / shares[0].sqrt()
    past: list[Tensor] = []
    for i, (a, s) in enumerate(zip(shares, levels, strict=True)):
        past.append(a.sqrt() * wiener(covariance, a) @ u)
        if i + 1 == len(shares):
            break
        middle = past[i]
        if i:
            ahead = (levels[i + 1] / s).log() / (s / levels[i - 1]).log() / 2
            middle = (1 + ahead) * past[i] - ahead * past[i - 1]
        u = middle + levels[i + 1] / s * (u - middle)
    return past[-1]


def guided(
    covariance: Tensor,
    alphas: Tensor,
    times: list[int],
    eta: float,
    rows: Tensor,
    values: Tensor,
    gains: list[Tensor],
    strengths: list[Tensor],
    origin: Tensor | None = None,
) -> Normal:
    """What a sampler guided through the denoiser draws under ``N(0, C)``: a DDIM step plus ``w J^T H^T g (y - H x0)``.

    ``J`` is the Wiener filter itself; ``gains`` as for :func:`sampler`, ``strengths`` are the ``w`` of each step.
    """
    eye = torch.eye(len(covariance), dtype=torch.float64)

    def steps() -> Iterator[Step]:
        for i, (a, b) in enumerate(with_next(alphas, times)):
            clean = wiener(covariance, a)
            back = strengths[i] * clean.T @ rows.T @ torch.diag(gains[i + 1])
            kept, fresh = ddim_noise(a, b, eta)
            free = b.sqrt() * clean + kept * (eye - a.sqrt() * clean) / (1 - a).sqrt()
            yield free - back @ rows @ clean, back @ values, fresh

    return follow(beginning(alphas[times[0]], rows, values, gains[0], origin), steps())


def ddim_noise(a: Tensor, b: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Standard deviation of the noise that a DDIM step keeps, and variance of the noise it adds."""
    fresh = eta**2 * (1 - b) * (b - a) / (b * (1 - a))
    return (1 - b - fresh).clamp_min(0).sqrt(), fresh


def score_strengths(alphas: Tensor, times: list[int], eta: float) -> list[Tensor]:
    """Weights of the guidance by which a DDIM step follows ``x0 + g / sqrt(a)``."""
    return [
        b.sqrt() / a.sqrt() - ddim_noise(a, b, eta)[0] / (1 - a).sqrt() for a, b in with_next(alphas, times)
    ]  # fmt: skip


def root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


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
    """Matrices of these sizes are many times faster on one thread than on two that share the cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
