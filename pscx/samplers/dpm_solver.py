"""Few-step deterministic sampling, Lu et al. 2022 (DPM-Solver++)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from pscx.exact import square_root
from pscx.priors.base import Prior
from pscx.priors.schedules import noise_levels

LOG_GRID = 2.0**20


def dpm_solver(prior: Prior, x: Tensor, times: list[int]) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2: from ``x`` at step ``times[0]`` to a clean signal, one evaluation a step.

    ``lambda`` is minus the logarithm of the noise level ``s``, ``h`` its change in a step, so that ``exp(-h)`` is
    ``s' / s``. The last step goes to noise level zero, so it returns what the denoiser says at ``times[-1]``; the
    first is of first order. ``x`` is ``(n, *shape)``, ``times`` falls strictly. Logarithms are rounded to 20 bits, so
    that a machine's last digits of them do not matter.
    """
    alphas = prior.alphas_cumprod.cpu()
    levels = noise_levels(alphas)
    lambdas = (-levels.log() * LOG_GRID).round() / LOG_GRID
    before: tuple[Tensor, Tensor] | None = None
    for now, later in pairwise(times):
        x0, h = prior.denoise(x, now), lambdas[later] - lambdas[now]
        slope = 0.0 if before is None else (x0 - before[0]) * (h / (2 * before[1]))
        a, b = alphas[now], alphas[later]
        shrink = 1 - levels[later] / levels[now]
        x = square_root((1 - b) / (1 - a)) * x + square_root(b) * shrink * (x0 + slope)
        before = x0, h
    return prior.denoise(x, times[-1])
