"""Pseudoinverse-guided diffusion, Song et al. 2023 (PiGDM), Eq. 7 and Algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.consistency import mean_gain
from pscx.samplers.course import Course
from pscx.samplers.ddim import ddim_step
from pscx.samplers.pullback import denoise_with_pullback

WEIGHTINGS = ("paper", "score")


@SAMPLERS.register("pigdm")
class PiGDM(Sampler):
    """PiGDM (Song et al. 2023): the posterior's score, were ``p(x0 | x_t)`` normal with covariance ``q I``.

    With ``a`` the schedule's signal variance at a step, ``a'`` at the next (1 after the last), ``v`` a measurement's
    noise variance and ``q = 1 - a``, the guidance of Eq. 7 times ``q`` is::

        x0 <- E[x0 | x_t]
        g  <- (d x0 / d x_t)^T H^T q (q I + v)^-1 (y - H x0)

    Rows are orthonormal and ``v`` diagonal, so the inverse is a division; exact measurements (``v = 0``) give Eq. 8.
    ``weighting`` says what ``g`` does in a step:

    - ``paper``, Algorithm 1: ``x_t' <- DDIM step(x0) + sqrt(a) g``. The guidance of a step does not depend on how long
      the step is, so more steps guide more.
    - ``score``: ``x_t' <- DDIM step(x0 + g / sqrt(a))``, where ``x0 + g / sqrt(a)`` is the posterior's denoiser (Eq. 7
      and Tweedie's formula). As the steps grow this becomes the reverse diffusion of Eq. 7.

    Args:
        steps: denoiser evaluations a sample, at least 1, each with its gradient.
        eta: of the DDIM step, in [0, 1]; 1 is the paper's.
        weighting: ``paper`` or ``score``.
        start: noise level of the first step where no estimate is held yet (units of the signal), or none for the
            schedule's last.
        warm_start: noise level of the first step where an estimate is held, which is then where it begins; none to
            start every time from nothing but the measurements.
        stop: noise level of the last step.
        spacing: of the steps: ``log`` in the noise level, or ``linear`` in the schedule's step number.
    """

    references = ("song2023pigdm",)

    def __init__(
        self,
        steps: int = 100,
        eta: float = 1.0,
        weighting: str = "paper",
        start: float | None = None,
        warm_start: float | None = None,
        stop: float = 0.0,
        spacing: str = "linear",
    ) -> None:
        self.course = Course(steps, start, warm_start, stop, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta must lie in [0, 1], got {eta}")
        if weighting not in WEIGHTINGS:
            raise ValueError(f"sampler.weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
        self.evaluations = steps
        self.eta, self.weighting = eta, weighting

    def sample(self, problem: Problem, indices: range) -> Tensor:
        times, x = self.course.begin(problem, indices, noise_aware=True)
        shares = torch.cat([problem.prior.alphas_cumprod[times].cpu(), torch.ones(1, dtype=torch.float64)])
        variances = problem.measurements.variances
        for step, t in enumerate(times):
            a, b = shares[step], shares[step + 1]
            x0, pullback = denoise_with_pullback(problem.prior, x, t)
            gain = mean_gain(variances, float((1 - a) / a))
            guidance = pullback(problem.measurements.correction(x0, gain))
            noise = problem.draw(indices, step + 1)
            if self.weighting == "score":
                x = ddim_step(x, x0 + guidance / a.sqrt(), a, b, self.eta, noise)
            else:
                x = ddim_step(x, x0, a, b, self.eta, noise) + a.sqrt() * guidance
        return x
