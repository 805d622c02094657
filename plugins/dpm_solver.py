"""A sampler for few steps: DPM-Solver++(2M), Lu et al. 2022, on the denoised signal as PSC projects it."""

from __future__ import annotations

from itertools import pairwise
from math import log

import torch
from torch import Tensor

from pscx.samplers import SAMPLERS, Problem, Sampler
from pscx.samplers.steps import schedule


@SAMPLERS.register("dpm_solver")
class DPMSolver(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) from noise to a signal that fits the measurements.

    With ``s`` the noise level of a step, ``s'`` of the next, and ``h`` the growth of ``-log s``::

        x0 <- E[x0 | x] + H^T g (y - H E[x0 | x])
        D  <- x0 + h' / (2 h) (x0 - previous x0),   h' to the next step, h from the previous one
        x  <- s' / s x + (1 - s' / s) D

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
        levels = schedule(problem.prior, self.start, self.stop, self.steps, "log")
        x, before, last = levels[0] * problem.draw(indices, 0), torch.zeros(()), 0.0
        for now, later in pairwise(levels):
            x0, h = self.clean(problem, x, now), log(now / later)
            ahead = x0 + h / (2 * last) * (x0 - before) if last else x0
            x, before, last = later / now * x + (1 - later / now) * ahead, x0, h
        return self.clean(problem, x, levels[-1])

    def clean(self, problem: Problem, x: Tensor, sigma: float) -> Tensor:
        """``x0 + H^T g (y - H x0)`` for ``x0 = E[x0 | x]``, ``(n, *shape)``."""
        known, x0 = problem.measurements, problem.prior.denoise(x, sigma)
        uncertainty = sigma**2 / (1 + sigma**2)
        gain = uncertainty / (uncertainty + known.variances)
        return x0 + known.adjoint(gain * (known.values - known.forward(x0)))
