"""Pseudoinverse-guided diffusion, Song et al. 2023 (PiGDM), Eq. 7 and Algorithm 1."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

from torch import Tensor

from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.consistency import mean_gain, residual, uncertainty
from pscx.samplers.course import Course
from pscx.samplers.ddim import ddim_step
from pscx.samplers.pullback import denoise_with_pullback

WEIGHTINGS = ("paper", "score")


@SAMPLERS.register("pigdm")
class PiGDM(Sampler):
    """PiGDM (Song et al. 2023): the posterior's score, were ``p(x0 | x)`` normal with covariance ``q I``.

    With ``s`` the noise level, ``s'`` the next (0 after the last), ``v`` a measurement's noise variance and
    ``q = s^2 / (1 + s^2)``, the guidance of Eq. 7 times ``q`` is::

        x0 <- E[x0 | x]
        g  <- (d x0 / d x)^T H^T q (q I + v)^-1 (y - H x0)

    Rows are orthonormal and ``v`` diagonal, so the inverse is a division; exact measurements (``v = 0``) give Eq. 8.
    ``weighting`` says what ``g`` does in a step:

    - ``paper``, Algorithm 1: ``x <- DDIM step(x0) + sqrt(1 + s'^2) g``, where the root leads from the paper's
      variance-preserving state to ``x``. The guidance of a step does not depend on how long the step is, so more steps
      guide more.
    - ``score``: ``x <- DDIM step(x0 + (s^2 / q) g)``, where ``x0 + (s^2 / q) g`` is the posterior's denoiser (Eq. 7 and
      Tweedie's formula). As the steps grow this becomes the reverse diffusion of Eq. 7.

    Args:
        steps: denoiser evaluations (NFE) per sample, at least 1, each with its gradient.
        eta: share of fresh noise in the DDIM step, in [0, 1]; 1 is the paper's.
        weighting: ``paper`` or ``score``.
        start: noise level of the first step without an estimate (units of the signal), over ``stop``, or none for
            the prior's highest.
        warm_start: noise level of the first step with an estimate, from which the sampler starts; over ``stop``, or
            none to start from the measurements only.
        stop: noise level of the last step.
        spacing: spacing of the steps: ``log`` in the noise level, or ``linear`` along the prior's own levels.
    """

    references = ("song2023pigdm",)

    needs_mean = True

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
        levels, x = self.course.begin(problem, indices, noise_aware=True)
        known = problem.measurements
        for step, (sigma, after) in enumerate(pairwise([*levels, 0.0])):
            x0, pullback = denoise_with_pullback(problem.prior, x, sigma)
            guidance = pullback(known.adjoint(residual(problem, x0) * mean_gain(known.variances, sigma)))
            noise = problem.draw(indices, step + 1)
            if self.weighting == "score":
                x = ddim_step(x, x0 + sigma**2 / uncertainty(sigma) * guidance, sigma, after, self.eta, noise)
            else:
                x = ddim_step(x, x0, sigma, after, self.eta, noise) + sqrt(1 + after**2) * guidance
        return x
