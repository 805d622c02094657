"""Principal components of the posterior from the denoiser's Jacobian instead of from many samples."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from pscx.exact import ordered_mean, square_root
from pscx.priors.base import Prior
from pscx.priors.schedules import nearest
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.orthonormal import eigen_work, fix_signs, orthonormalize
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

ADDRESS = (1 << 32) + 1  # noise index reserved for this rule
FULLEST = 0.95  # share of the noise power: a learned denoiser's Jacobian may exceed that of a covariance
EMPTIEST = 1e-9  # share of the noise power: a variance below it is a rounding error


@ROWS.register("tweedie")
class Tweedie(RowRule):
    """Top eigenvectors of the denoiser's Jacobian by subspace iteration (Manor and Michaeli 2024, Algorithm 1).

    At noise level ``s``, Tweedie's formula of second order is::

        Cov[x0 | x] = s^2 * d E[x0 | x] / d x

    ``x`` is the mean of the samples with noise of that level. The information of ``x`` itself is then removed: a
    variance ``c`` becomes ``1 / (1 / c - 1 / s^2)``, as if ``x`` had not been seen. On a Gaussian prior
    with exact measurements this gives the posterior's own eigenvectors and variances at any ``s``.

    Products with the Jacobian are finite differences of the denoiser, as in the paper: one evaluation each, of any
    prior. Those of an ``exact`` prior are coarse, and need a ``step`` of 1 or more. The iteration begins with the
    samples' deviations from their mean, then noise. Every pass projects out the span of the known rows; without
    ``corrections`` this ignores their correlation with the rest. The first codec iteration needs no samples. An
    iteration takes ``1 + (per_iteration + extra) passes (1 + corrections)`` evaluations beside those of the samples.

    Args:
        per_iteration: rows per iteration, at least 1; fewer if the Jacobian has fewer positive eigenvalues.
        extra: additional directions of the subspace iteration, at least 0; they speed up convergence.
        passes: passes of the subspace iteration, at least 1.
        corrections: steps of conjugate gradients towards the Schur complement of the known rows, at least 0.
        start: noise level of the first codec iteration (units of the signal), over 0.
        stop: noise level of the last iteration, over 0; the others are spaced evenly in the logarithm.
        step: length of a finite difference, in standard deviations of the noise, over 0.
        seed: seed of the noise, in [0, 2^64).
        batch: largest micro-batch of directions in one network call, at least 1.
    """

    references = ("manor2024posterior",)

    needs_mean = True

    def __init__(
        self,
        per_iteration: int = 12,
        extra: int = 4,
        passes: int = 4,
        corrections: int = 0,
        start: float = 20.0,
        stop: float = 0.3,
        step: float = 2.0,
        seed: int = 0,
        batch: int = 4,
    ) -> None:
        least = {"per_iteration": 1, "extra": 0, "passes": 1, "corrections": 0, "batch": 1}
        counts = (per_iteration, extra, passes, corrections, batch)
        for (name, bound), count in zip(least.items(), counts, strict=True):
            if count < bound:
                raise ValueError(f"rows.{name} must be at least {bound}, got {count}")
        for name, size in (("start", start), ("stop", stop), ("step", step)):
            if not 0 < size < inf:
                raise ValueError(f"rows.{name} must be over 0, got {size}")
        self.per_iteration, self.extra, self.passes, self.corrections = per_iteration, extra, passes, corrections
        self.levels, self.step, self.batch = (start, stop), step, batch
        self.noise = Noise(seed)
        self.evaluations = 1 + (per_iteration + extra) * passes * (1 + corrections)

    @property
    def stride(self) -> int:
        return 1

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        rows = min(self.per_iteration * iterations, prod(shape))
        directions = min(self.per_iteration + self.extra, prod(shape))
        return 8 * prod(shape) * (2 * rows + 8 * directions + 4 * samples + 20 * min(self.batch, directions))

    def work(self, shape: tuple[int, ...], samples: int, iterations: int, evaluations: int) -> float:
        numbers = prod(shape)
        rows = min(self.per_iteration * iterations, numbers)
        directions = min(self.per_iteration + self.extra, numbers)
        one_pass = numbers * directions * (4 * directions + 2 * (2 + self.corrections) * rows)
        chosen = self.passes * one_pass + eigen_work(directions)
        return iterations * chosen + 2 * evaluations * rows * numbers

    def start(self, prior: Prior, shape: tuple[int, ...]) -> DenseRows:
        channels, height, width = shape
        return DenseRows(Partition(channels, height, width, None), prior.home)

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        known = situation.measurements
        assert isinstance(known, DenseRows)
        dim = known.partition.dim
        count = min(self.per_iteration + self.extra, dim - len(known))
        address = {"iteration": situation.iteration, "sample": ADDRESS, "step": 0}
        draws = self.noise.normal((count + 1, dim), **address, device=known.device)
        posterior = self.linearised(situation, known, draws[0])
        deviations = draws[:0] if situation.samples is None else deviations_of(situation.samples)
        values, rows = leading(posterior, torch.cat([deviations, draws[1:]])[:count], self.passes)
        keep = min(self.per_iteration, int((values > EMPTIEST * posterior.power).sum()))
        share = (values[:keep] / posterior.power).clamp_max(FULLEST)
        variance = posterior.power * share / (1 - share) * known.gains[0]
        order = torch.zeros(keep, dtype=torch.int64, device=known.device)
        return Proposal(order, fix_signs(rows[:keep]), variance, [keep] if keep else [])

    def linearised(self, situation: Situation, known: DenseRows, noise: Tensor) -> PosteriorCovariance:
        """The posterior at the mean of the samples (zero without any), restored to this iteration's noise level."""
        denoiser = situation.denoiser
        sigma = float(denoiser.levels[nearest(denoiser.levels, self.level(situation))])
        x = sigma * known.partition.join(noise[None, None])
        if situation.samples is not None:
            x += ordered_mean([situation.samples])
        x0 = denoiser.denoise(x, sigma)
        return PosteriorCovariance(denoiser, known, x, sigma, x0, self.corrections, self.step, self.batch)

    def level(self, situation: Situation) -> float:
        """The noise level of an iteration."""
        start, stop = self.levels
        return float(start * (stop / start) ** (situation.iteration / max(situation.iterations - 1, 1)))


@dataclass(frozen=True)
class PosteriorCovariance:
    """``Cov[x0 | x, y]`` off the ``known`` rows, as a product with vectors ``(n, dim)``; ``x0`` is ``E[x0 | x]``.

    ``x``, at noise level ``sigma``, and ``x0`` are ``(1, channels, height, width)``; see :class:`Tweedie` for the rest.
    """

    denoiser: Prior
    known: DenseRows
    x: Tensor
    sigma: float
    x0: Tensor
    corrections: int
    step: float
    batch: int

    @property
    def power(self) -> float:
        """``s^2``, which no variance given ``x`` exceeds."""
        return self.sigma * self.sigma

    def free(self, vectors: Tensor) -> Tensor:
        """``vectors`` without what the known rows span."""
        block = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
        return self.known.complement(block, vectors)

    def times(self, vectors: Tensor) -> Tensor:
        """The product with vectors off the known rows, itself off them."""
        product = self.denoised(vectors)
        if self.corrections and len(self.known):
            product = self.conditioned(product)
        return self.free(product)

    def denoised(self, vectors: Tensor) -> Tensor:
        """``Cov[x0 | x] v``: Tweedie's formula with a finite difference of length ``step s``."""
        size = self.step * self.sigma
        lengths = square_root(vectors.square().sum(1, keepdim=True)).clamp_min(torch.finfo(vectors.dtype).tiny)
        moves = self.known.partition.join((vectors * (size / lengths))[:, None])
        moved = torch.cat([self.denoiser.denoise(self.x + part, self.sigma) for part in torch.split(moves, self.batch)])
        difference = self.known.partition.split(moved - self.x0)[:, 0]
        return difference * (lengths / size) * self.power

    def conditioned(self, product: Tensor) -> Tensor:
        """``C v - C H^T w`` with ``(H C H^T + R) w = H C v`` by conjugate gradients, given ``C v``."""
        rows, variances = self.known.rows[0], self.known.variances[0]
        rest = way = product @ rows.T
        power = rest.square().sum(1, keepdim=True)
        for _ in range(self.corrections):
            moved = self.denoised(way @ rows)
            image = moved @ rows.T + way * variances
            curvature = (way * image).sum(1, keepdim=True)
            size = torch.where(curvature > 0, power / curvature, 0.0)  # zero if nothing is left
            product, rest = product - size * moved, rest - size * image
            before, power = power, rest.square().sum(1, keepdim=True)
            way = rest + torch.where(before > 0, power / before, 0.0) * way
        return product


def deviations_of(samples: Tensor) -> Tensor:
    """Samples less their mean, all but the last (which depends on the others): ``(s - 1, dim)``."""
    return (samples - ordered_mean([samples]))[:-1].flatten(1)


def leading(posterior: PosteriorCovariance, vectors: Tensor, passes: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues ``(r,)`` and eigenvectors ``(r, dim)``, begun at ``vectors``.

    Subspace iteration with a Rayleigh-Ritz step (Golub and Van Loan 2013, section 8.2.4) on the symmetric part.
    """
    products = posterior.free(vectors)
    for _ in range(passes):
        vectors = posterior.free(orthonormalize(products))
        products = posterior.times(vectors)
    inner = vectors @ products.T
    values, rotation = torch.linalg.eigh((inner + inner.T) / 2)
    return values.flip(0), rotation.T.flip(0) @ vectors
