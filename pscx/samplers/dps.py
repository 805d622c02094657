"""Diffusion posterior sampling, Chung et al. 2023 (DPS), Algorithm 1 and Eq. 16."""

from __future__ import annotations

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

    With ``a`` the schedule's signal variance at a step, ``a'`` at the next (1 after the last), one step is::

        x0   <- E[x0 | x_t]
        x'   <- DDIM step from a to a', ancestral with eta = 1
        x_t' <- x' - zeta grad ||y - H x0||^2,   zeta = scale / ||y - H x0||

    The gradient is with respect to ``x_t``, through the network. With ``noise_aware`` a squared error of noise
    variance ``v`` counts ``q / (q + v)`` as in :class:`pscx.samplers.DDRM`; the norm in ``zeta`` counts all fully, so
    that noisy measurements lose their pull at the end.

    Args:
        steps: denoiser evaluations a sample, at least 1, each with its gradient; the paper takes 1000.
        scale: the paper's ``zeta'``, over 0: 0.1 to 1 there.
        normalize: whether ``scale`` is divided by the norm of the error, as in the paper; without it one step moves
            ``H x0`` by about ``2 scale`` of the error at low noise, so ``scale`` 0.5 is a projection.
        eta: of the DDIM step, in [0, 1]; 1 is the paper's.
        start: noise level of the first step where no estimate is held yet (units of the signal), or none for the
            schedule's last.
        warm_start: noise level of the first step where an estimate is held, which is then where it begins; none to
            start every time from nothing but the measurements.
        stop: noise level of the last step.
        spacing: of the steps: ``log`` in the noise level, or ``linear`` in the schedule's step number.
        noise_aware: whether measurements are weighed by their noise; not in the paper.
    """

    references = ("chung2023dps",)

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
        times, x = self.course.begin(problem, indices, self.noise_aware)
        shares = torch.cat([problem.prior.alphas_cumprod[times].cpu(), torch.ones(1, dtype=torch.float64)])
        for step, t in enumerate(times):
            a, b = shares[step], shares[step + 1]
            x0, pullback = denoise_with_pullback(problem.prior, x, t)
            move = pullback(problem.measurements.adjoint(self._pull(problem, x0, float((1 - a) / a))))
            x = ddim_step(x, x0, a, b, self.eta, problem.draw(indices, step + 1)) + move
        return x

    def _pull(self, problem: Problem, x0: Tensor, noise_power: float) -> Tensor:
        """Minus ``zeta`` times the gradient of the weighed squared error with respect to ``H x0``."""
        error = residual(problem, x0)
        weight = mean_gain(problem.measurements.variances, noise_power) if self.noise_aware else 1.0
        zeta = self.scale / norm(error) if self.normalize else self.scale
        return 2 * zeta * weight * error


def norm(error: Tensor) -> Tensor:
    """Norm of each of ``(n, blocks, places)``, ``(n, 1, 1)``; kept over zero, for an error that is exactly zero."""
    lengths: Tensor = error.flatten(1).norm(dim=1)[:, None, None]
    return lengths.clamp_min(torch.finfo(error.dtype).tiny)
