"""Denoising diffusion restoration, Kawar et al. 2022 (DDRM), for orthonormal rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.exact import square_root
from pscx.priors.schedules import noise_levels
from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.steps import SPACINGS, timesteps


@SAMPLERS.register("ddrm")
class DDRM(Sampler):
    """DDRM (Kawar et al. 2022, section 4) as PSC uses it: project the denoised signal, add noise again.

    With ``a`` the schedule's signal variance at a step, ``a'`` at the next, one step is::

        x0   <- E[x0 | x_t]
        x0   <- x0 + H^T g (y - H x0)
        x_t' <- sqrt(a') x0 + sqrt(1 - a') (sqrt(1 - eta^2) e + eta z),   e = (x_t - sqrt(a) x0) / sqrt(1 - a)

    The gain ``g = q / (q + v)`` weighs a measurement's noise variance ``v`` against the denoiser's own,
    ``q = s^2 / (1 + s^2)`` at noise level ``s`` (Song et al. 2023, PiGDM, Eq. 6); ``noise_aware=False`` sets it to 1,
    the paper's step. The last step returns ``x0``.

    Args:
        steps: denoiser evaluations a sample, at least 1.
        eta: share of fresh noise in [0, 1]; 1 is the paper's.
        start: noise level of the first step where no estimate is held yet (units of the signal), or none for the
            schedule's last.
        warm_start: noise level of the first step where an estimate is held, which then takes the place of the
            unmeasured part; none to start every time from nothing but the measurements.
        stop: noise level of the last step.
        spacing: of the steps: ``log`` in the noise level, or ``linear`` in the schedule's step number.
        noise_aware: whether measurements are weighed by their noise.
    """

    def __init__(
        self,
        steps: int = 50,
        eta: float = 1.0,
        start: float | None = None,
        warm_start: float | None = None,
        stop: float = 0.0,
        spacing: str = "linear",
        noise_aware: bool = True,
    ) -> None:
        if steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {steps}")
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta must lie in [0, 1], got {eta}")
        if spacing not in SPACINGS:
            raise ValueError(f"sampler.spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
        for name, level in (("start", start), ("warm_start", warm_start)):
            if level is not None and level <= stop:
                raise ValueError(f"sampler.{name} must be over sampler.stop ({stop}), got {level}")
        self.steps, self.eta, self.start, self.warm_start = steps, eta, start, warm_start
        self.stop, self.spacing, self.noise_aware = stop, spacing, noise_aware

    def sample(self, problem: Problem, indices: range) -> Tensor:
        alphas = problem.prior.alphas_cumprod
        warm = problem.estimate is not None and self.warm_start is not None
        times = timesteps(
            noise_levels(alphas), self.warm_start if warm else self.start, self.stop, self.steps, self.spacing
        )
        origin = problem.estimate if warm else None
        x0 = self.project(problem, torch.zeros(problem.shape, dtype=torch.float64) if origin is None else origin, 1.0)
        a = alphas[times[0]]
        x = square_root(a) * x0 + square_root(1 - a) * problem.draw(indices, 0)
        for step, t in enumerate(times):
            a = alphas[t]
            x0 = self.project(problem, problem.prior.denoise(x, t), float((1 - a) / a))
            if step + 1 == len(times):
                break
            b = alphas[times[step + 1]]
            noise = self.eta * problem.draw(indices, step + 1)
            if self.eta < 1:
                noise += (1 - self.eta**2) ** 0.5 * (x - square_root(a) * x0) / square_root(1 - a)
            x = square_root(b) * x0 + square_root(1 - b) * noise
        return x0

    def project(self, problem: Problem, x0: Tensor, noise_power: float) -> Tensor:
        """``x0 + H^T g (y - H x0)`` for ``(n, *shape)`` or ``shape``, with the denoiser at noise variance ``s^2``."""
        signal = x0.reshape(-1, *problem.shape)
        measurements = problem.measurements
        residual = measurements.values - measurements.forward(signal)
        if self.noise_aware:
            uncertainty = noise_power / (1 + noise_power)
            residual = residual * (uncertainty / (uncertainty + measurements.variances))
        return (signal + measurements.adjoint(residual)).reshape(x0.shape)
