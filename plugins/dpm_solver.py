"""A sampler for few steps: DPM-Solver++(2M), Lu et al. 2022, on the denoised signal as PSC projects it."""

from __future__ import annotations

from math import exp, log

import torch
from torch import Tensor

from pscx.priors.schedules import noise_levels
from pscx.samplers import SAMPLERS, Problem, Sampler
from pscx.samplers.steps import timesteps


@SAMPLERS.register("dpm_solver")
class DPMSolver(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) from noise to a signal that fits the measurements.

    With ``s`` the noise level ``sqrt(1 - a) / sqrt(a)`` at a step, ``l = -log s`` and ``h`` the growth of ``l``::

        x0   <- E[x0 | x_t] + H^T g (y - H E[x0 | x_t])
        D    <- x0 + h' / (2 h) (x0 - previous x0),   h' to the next step, h from the previous one
        x_t' <- s' / s x_t + (1 - e^-h') D            (x_t over sqrt(a))

    ``g = q / (q + v)`` weighs a measurement's noise variance ``v`` against the denoiser's, ``q = s^2 / (1 + s^2)``.
    The noise of the start is the only noise. The last step returns ``x0``.

    Args:
        steps: denoiser evaluations a sample, at least 1.
        start: noise level of the first step, over ``stop`` (units of the signal).
        stop: noise level of the last step, at least 0.
    """

    def __init__(self, steps: int = 8, start: float = 20.0, stop: float = 0.02) -> None:
        if steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {steps}")
        if not 0 <= stop < start:
            raise ValueError(f"sampler.start must be over sampler.stop, and that at least 0, got {start} and {stop}")
        self.steps, self.start, self.stop, self.evaluations = steps, start, stop, steps

    def sample(self, problem: Problem, indices: range) -> Tensor:
        prior, levels = problem.prior, noise_levels(problem.prior.alphas_cumprod)
        times = timesteps(levels, self.start, self.stop, self.steps, "log")
        x, before, h = float(levels[times[0]]) * problem.draw(indices, 0), torch.zeros(()), 0.0
        for t, after in zip(times, [*times[1:], None], strict=True):
            s = float(levels[t])
            x0 = self.project(problem, prior.denoise(x / (1 + s**2) ** 0.5, t), s**2 / (1 + s**2))
            if after is None:
                break
            last, h = h, log(s / float(levels[after]))
            ahead = x0 + h / (2 * last) * (x0 - before) if last else x0
            x, before = exp(-h) * x + (1 - exp(-h)) * ahead, x0
        return x0

    def project(self, problem: Problem, x0: Tensor, uncertainty: float) -> Tensor:
        """``x0 + H^T g (y - H x0)`` for ``(n, *shape)``."""
        known = problem.measurements
        gain = uncertainty / (uncertainty + known.variances)
        return x0 + known.adjoint(gain * (known.values - known.forward(x0)))
