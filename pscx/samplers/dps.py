"""Diffusion posterior sampling, Chung et al. 2023 (DPS), Algorithm 1 and Eq. 16."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.consistency import mean_gain, residual
from pscx.samplers.course import Course
from pscx.samplers.ddim import ddim_step
from pscx.samplers.pullback import denoise_with_pullback


@SAMPLERS.register("dps")
class DPS(Sampler):
    """DPS (Chung et al. 2023, Algorithm 1): an unconditional step, then a gradient step on the measurements' error.

    From noise level ``s`` to the next, ``s'`` (0 after the last), one step is::

        x0 <- E[x0 | x]
        x' <- DDIM step from s to s', ancestral with eta = 1
        x  <- x' - zeta sqrt((1 + s^2) (1 + s'^2)) grad ||y - H x0||^2,   zeta = scale / ||y - H x0||

    The gradient is with respect to ``x``, through the network. The root is there because the paper takes it with
    respect to ``x / sqrt(1 + s^2)``, its variance-preserving state, and moves ``x' / sqrt(1 + s'^2)``. With
    ``noise_aware`` a squared error of noise variance ``v`` counts ``q / (q + v)`` as in :class:`pscx.samplers.DDRM`;
    the norm in ``zeta`` counts all fully, so that noisy measurements lose their pull at the end.

    Args:
        steps: denoiser evaluations (NFE) per sample, at least 1, each with its gradient; the paper takes 1000.
        scale: the paper's ``zeta'``, over 0: 0.1 to 1 there.
        normalize: whether ``scale`` is divided by the norm of the error, as in the paper; without it one step moves
            ``H x0`` by about ``2 scale`` of the error at low noise, so ``scale`` 0.5 is a projection.
        eta: share of fresh noise in the DDIM step, in [0, 1]; 1 is the paper's.
        start: noise level of the first step without an estimate (units of the signal), over ``stop``, or none for
            the prior's highest.
        warm_start: noise level of the first step with an estimate, from which the sampler starts; over ``stop``, or
            none to start from the measurements only.
        stop: noise level of the last step.
        spacing: spacing of the steps: ``log`` in the noise level, or ``linear`` along the prior's own levels.
        noise_aware: whether measurements are weighted by their noise; not in the paper.
    """

    references = ("chung2023dps",)

    needs_mean = True

    def __init__(
        self,
        steps: int = 100,
        scale: float = 0.5,
        normalize: bool = True,
        eta: float = 1.0,
        start: float | None = None,
        warm_start: float | None = None,
        stop: float = 0.0,
        spacing: str = "linear",
        noise_aware: bool = True,
    ) -> None:
        self.course = Course(steps, start, warm_start, stop, spacing)
        if not scale > 0:
            raise ValueError(f"sampler.scale must be over 0, got {scale}")
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta must lie in [0, 1], got {eta}")
        self.evaluations = steps
        self.scale, self.normalize, self.eta, self.noise_aware = scale, normalize, eta, noise_aware

    def sample(self, problem: Problem, indices: range) -> Tensor:
        levels, x = self.course.begin(problem, indices, self.noise_aware)
        for step, (sigma, after) in enumerate(pairwise([*levels, 0.0])):
            x0, pullback = denoise_with_pullback(problem.prior, x, sigma)
            move = pullback(problem.measurements.adjoint(self._pull(problem, x0, sigma)))
            x = ddim_step(x, x0, sigma, after, self.eta, problem.draw(indices, step + 1))
            x += sqrt((1 + sigma**2) * (1 + after**2)) * move
        return x

    def _pull(self, problem: Problem, x0: Tensor, sigma: float) -> Tensor:
        """Minus ``zeta`` times the gradient of the weighed squared error with respect to ``H x0``."""
        error = residual(problem, x0)
        weight = mean_gain(problem.measurements.variances, sigma) if self.noise_aware else 1.0
        zeta = self.scale / norm(error) if self.normalize else self.scale
        return 2 * zeta * weight * error


def norm(error: Tensor) -> Tensor:
    """Norm of each of ``(n, blocks, places)``, ``(n, 1, 1)``; kept over zero, for an error that is exactly zero."""
    lengths: Tensor = error.flatten(1).norm(dim=1)[:, None, None]
    return lengths.clamp_min(torch.finfo(error.dtype).tiny)
