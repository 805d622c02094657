"""Few-step deterministic sampling, Lu et al. 2022 (DPM-Solver++)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from pscx.priors.base import Prior
from pscx.priors.schedules import noise_levels


def dpm_solver(prior: Prior, x: Tensor, times: list[int]) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2: from ``x`` at step ``times[0]`` to a clean signal, one evaluation a step.

    ``lambda`` is minus the logarithm of the noise level and ``h`` its change in a step. The last step goes to noise
    level zero, so it returns what the denoiser says at ``times[-1]``; the first is of first order. ``x`` is
    ``(n, *shape)``, ``times`` falls strictly.
    """
    alphas = prior.alphas_cumprod
    lambdas = -noise_levels(alphas).log()
    before: tuple[Tensor, Tensor] | None = None
    for now, later in pairwise(times):
        x0, h = prior.denoise(x, now), lambdas[later] - lambdas[now]
        slope = 0.0 if before is None else (x0 - before[0]) * h / (2 * before[1])
        a, b = alphas[now], alphas[later]
        x = ((1 - b) / (1 - a)).sqrt() * x - b.sqrt() * (-h).expm1() * (x0 + slope)
        before = x0, h
    return prior.denoise(x, times[-1])
