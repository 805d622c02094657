"""Denoising diffusion restoration, Kawar et al. 2022 (DDRM), for orthonormal rows."""

from __future__ import annotations

from functools import partial
from math import sqrt

import torch
from torch import Tensor

from pscx.exact import number
from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.consistency import full_gain, mean_gain, project
from pscx.samplers.course import Course


@SAMPLERS.register("ddrm")
class DDRM(Sampler):
    """DDRM (Kawar et al. 2022, section 4) as PSC uses it: project the denoised signal, add noise again.

    From noise level ``s`` to the next, ``s'``, one step is::

        x0 <- E[x0 | x]
        x0 <- x0 + H^T g (y - H x0)
        x  <- x0 + s' (sqrt(1 - eta^2) e + eta z),   e = (x - x0) / s

    The gain ``g = q / (q + v)`` weights a measurement's noise variance ``v`` against the denoiser's own,
    ``q = s^2 / (1 + s^2)`` (Song et al. 2023, PiGDM, Eq. 6); ``noise_aware=False`` sets it to 1, the paper's step. The
    last step returns ``x0``.

    Args:
        steps: denoiser evaluations (NFE) per sample, at least 1.
        eta: share of fresh noise in [0, 1]; 1 is the paper's.
        start: noise level of the first step without an estimate (units of the signal), over ``stop``, or none for
            the prior's highest.
        warm_start: noise level of the first step with an estimate, which fills the unmeasured part; over ``stop``, or
            none to start from the measurements only.
        stop: noise level of the last step.
        spacing: spacing of the steps: ``log`` in the noise level, or ``linear`` along the prior's own levels.
        noise_aware: whether measurements are weighted by their noise.
    """

    references = ("kawar2022ddrm", "song2023pigdm")

    exact = True

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
        self.course = Course(steps, start, warm_start, stop, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta must lie in [0, 1], got {eta}")
        self.steps, self.eta, self.noise_aware = steps, eta, noise_aware
        self.evaluations = steps

    def sample(self, problem: Problem, indices: range) -> Tensor:
        levels, x = self.course.begin(problem, indices, self.noise_aware)
        for step, sigma in enumerate(levels):
            gain = partial(mean_gain, sigma=sigma) if self.noise_aware else full_gain
            x0 = problem.prior.denoise(x, sigma)
            if self.eta == 1:
                x = torch.empty(0)  # it is not needed again, and may be hundreds of megabytes
            x0 = project(problem, x0, gain)
            if step + 1 == len(levels):
                break
            noise = problem.draw(indices, step + 1).mul_(self.eta)
            if self.eta < 1:
                noise += sqrt(1 - self.eta * self.eta) * (x - x0) / number(sigma, x)
            x = noise.mul_(levels[step + 1]).add_(x0)
            del noise
        return x0
