"""Few-step deterministic sampling, Lu et al. 2022 (DPM-Solver++)."""

from __future__ import annotations

from itertools import pairwise
from math import log

from torch import Tensor

from pscx.priors.base import Prior

LOG_GRID = 2**20


def dpm_solver(prior: Prior, x: Tensor, levels: list[float]) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2: from ``x`` at noise level ``levels[0]`` to a clean signal, one evaluation a step.

    ``lambda`` is minus the logarithm of the noise level ``s``, ``h`` its change in a step, so that ``exp(-h)`` is
    ``s' / s``. The last step goes to noise level zero, so it returns what the denoiser says at ``levels[-1]``; the
    first is of first order. ``x`` is ``(n, *shape)``, ``levels`` falls strictly. Logarithms are rounded to 20 bits, so
    that a machine's last digits of them do not matter; a step after one that has no length then is of first order.
    """
    lambdas = [round(-log(level) * LOG_GRID) / LOG_GRID for level in levels]
    before: tuple[Tensor, float] | None = None
    for i, (now, later) in enumerate(pairwise(levels)):
        x0, h = prior.denoise(x, now), lambdas[i + 1] - lambdas[i]
        slope = (x0 - before[0]) * (h / (2 * before[1])) if before and before[1] else 0.0
        x = later / now * x + (1 - later / now) * (x0 + slope)
        before = x0, h
    return prior.denoise(x, levels[-1])
