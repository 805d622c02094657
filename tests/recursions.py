"""What each sampler draws under ``N(0, C)``, by its linear recursion of mean and covariance.

Dense matrices, float64, written from the papers' formulas alone, no code of pscx: in their variance-preserving state
``x_t = sqrt(a) x0 + sqrt(1 - a) z``, where the samplers have ``x_t / sqrt(a)``. Noise levels ``s`` fall, as
:func:`oracles.visited` gives them; ``a = 1 / (1 + s^2)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from oracles import Normal, visited, wiener
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """``values = rows x + noise`` of these variances is known of ``x ~ N(0, C)``: ``(r, n)``, ``(r,)``, ``(r,)``.

    ``grid`` are the prior's noise levels, ``origin`` ``(n,)`` is where a warm start begins.
    """

    covariance: Tensor
    grid: Tensor
    rows: Tensor
    values: Tensor
    variances: Tensor
    origin: Tensor | None = None

    @property
    def eye(self) -> Tensor:
        return torch.eye(len(self.covariance), dtype=torch.float64)

    def shares(self, levels: list[float]) -> list[Tensor]:
        """Signal variance at each visited level; 1 after the last."""
        return [*(1 / (1 + torch.tensor([*levels, 0.0], dtype=torch.float64) ** 2))]

    def gain(self, a: Tensor | float, noise_aware: bool = True) -> Tensor:
        """Weights of the measurements against a denoiser of variance ``1 - a``: that at noise level 1 is 1 / 2."""
        return (1 - a) / (1 - a + self.variances) if noise_aware else torch.ones_like(self.variances)

    def beginning(self, a: Tensor, noise_aware: bool) -> Normal:
        """``sqrt(a) x0 + sqrt(1 - a) z``; ``x0`` is the origin or zero, corrected as at noise level 1."""
        guess = torch.zeros(len(self.eye), dtype=torch.float64) if self.origin is None else self.origin
        x0 = guess + self.rows.T @ (self.gain(0.5, noise_aware) * (self.values - self.rows @ guess))
        return Normal(a.sqrt() * x0, (1 - a) * self.eye)


def advance(state: Normal, matrix: Tensor, offset: Tensor, fresh: Tensor) -> Normal:
    """Of ``matrix x + offset`` and fresh white noise of this variance."""
    spread = matrix @ state.covariance @ matrix.T + fresh * torch.eye(len(matrix), dtype=torch.float64)
    return Normal(matrix @ state.mean + offset, spread)


def renoising(
    case: Case, levels: list[float], eta: float, clean_at: Callable[[int], Tensor], gains: list[Tensor], start: Normal
) -> Normal:
    """Clean, correct by ``rows^T gain (y - H x0)``, mix with old and fresh noise; ``clean_at(i)`` is a matrix."""
    state, rows = start, case.rows
    for i, (a, b) in enumerate(pairwise(case.shares(levels))):
        clean = (case.eye - rows.T @ torch.diag(gains[i]) @ rows) @ clean_at(i)
        kept = ((1 - b) * (1 - eta**2) / (1 - a)).sqrt()
        matrix = b.sqrt() * clean + kept * (case.eye - a.sqrt() * clean)
        offset = (b.sqrt() - kept * a.sqrt()) * rows.T @ (gains[i] * case.values)
        state = advance(state, matrix, offset, (1 - b) * eta**2)
    return state


def ddrm(case: Case, levels: list[float], eta: float, noise_aware: bool = True) -> Normal:
    """Of ``DDRM``."""
    shares = case.shares(levels)[:-1]
    gains = [case.gain(a, noise_aware) for a in shares]
    start = case.beginning(shares[0], noise_aware)
    return renoising(case, levels, eta, lambda i: wiener(case.covariance, shares[i]), gains, start)


def nested(
    case: Case, levels: list[float], inner_steps: int, spacing: str, noise_aware: bool = True, mean_gain: bool = False
) -> Normal:
    """Of ``Nested``, or with ``mean_gain`` of one that weighs measurements as ``DDRM`` does."""
    shares = case.shares(levels)[:-1]
    gains = [case.gain(a, noise_aware) for a in shares]
    if noise_aware and not mean_gain:
        gains = [1 - (1 - gain).sqrt() for gain in gains]
    runs = [visited(case.grid, level, levels[-1], inner_steps, spacing) for level in levels[:-1]] + [levels[-1:]]
    start = case.beginning(shares[0], noise_aware)
    clean = [solver(case.covariance, torch.stack(case.shares(run)[:-1])) for run in runs]
    return renoising(case, levels, 1.0, lambda i: clean[i], gains, start)


def solver(covariance: Tensor, shares: Tensor) -> Tensor:
    """Matrix of a second-order multistep solver over signal variances ``shares``, then one denoising.

    In the coordinates of Karras et al. 2022 (EDM): ``u = x / sqrt(a)`` at noise level ``s`` obeys
    ``d u / d log s = u - D(u)``, and ``D`` is taken linear in ``log s`` through its last two values, at the middle.
    """
    levels = ((1 - shares) / shares).sqrt()
    logs = (levels.log() * 2**20).round() / 2**20  # the sampler rounds them, to be the same on every machine
    u = torch.eye(len(covariance), dtype=torch.float64) / shares[0].sqrt()
    past: list[Tensor] = []
    for i, (a, s) in enumerate(zip(shares, levels, strict=True)):
        past.append(a.sqrt() * wiener(covariance, a) @ u)
        if i + 1 == len(shares):
            break
        middle = past[i]
        if i:
            ahead = (logs[i + 1] - logs[i]) / (logs[i] - logs[i - 1]) / 2
            middle = (1 + ahead) * past[i] - ahead * past[i - 1]
        u = middle + levels[i + 1] / s * (u - middle)
    return past[-1]


def dps(case: Case, levels: list[float], scale: float, eta: float, noise_aware: bool = True) -> Normal:
    """Of ``DPS`` without its norm: each step walks ``scale`` times the gradient of the squared error."""
    return guided(case, levels, eta, [torch.tensor(2 * scale, dtype=torch.float64)] * len(levels), noise_aware)


def pigdm(case: Case, levels: list[float], eta: float, weighting: str) -> Normal:
    """Of ``PiGDM``."""
    pulls = []
    for a, b in pairwise(case.shares(levels)):
        kept = (1 - b - fresh_variance(a, b, eta)).clamp_min(0).sqrt()
        pulls.append(a.sqrt() if weighting == "paper" else b.sqrt() / a.sqrt() - kept / (1 - a).sqrt())
    return guided(case, levels, eta, pulls, True)


def guided(case: Case, levels: list[float], eta: float, pulls: list[Tensor], noise_aware: bool) -> Normal:
    """A DDIM step of the Wiener filter ``J``, plus ``pull J^T rows^T gain (y - H x0)``."""
    state, rows = case.beginning(case.shares(levels)[0], noise_aware), case.rows
    for (a, b), pull in zip(pairwise(case.shares(levels)), pulls, strict=True):
        clean, fresh = wiener(case.covariance, a), fresh_variance(a, b, eta)
        back = pull * clean.T @ rows.T @ torch.diag(case.gain(a, noise_aware))
        noise = (case.eye - a.sqrt() * clean) / (1 - a).sqrt()
        matrix = b.sqrt() * clean + (1 - b - fresh).clamp_min(0).sqrt() * noise - back @ rows @ clean
        state = advance(state, matrix, back @ case.values, fresh)
    return state


def fresh_variance(a: Tensor, b: Tensor, eta: float) -> Tensor:
    """Variance of the noise that a DDIM step adds: with ``eta`` 1 that of ``x_t'`` given ``x_t`` and ``x0``."""
    return eta**2 * (1 - b) * (b - a) / (b * (1 - a))
