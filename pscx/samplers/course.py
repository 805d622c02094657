"""Which noise levels a sampler visits and where it begins: the options that all samplers share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pscx.exact import square_root
from pscx.priors.schedules import noise_levels
from pscx.samplers.base import Problem
from pscx.samplers.consistency import full_gain, mean_gain, project
from pscx.samplers.steps import SPACINGS, timesteps


@dataclass(frozen=True)
class Course:
    """From noise level ``start`` (``warm_start`` where an estimate is held) down to ``stop``.

    The options of :class:`pscx.samplers.DDRM` of the same names. Raises ``ValueError`` where one is out of range.
    """

    steps: int
    start: float | None
    warm_start: float | None
    stop: float
    spacing: str

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}")
        if self.spacing not in SPACINGS:
            raise ValueError(f"sampler.spacing must be one of {', '.join(SPACINGS)}, got {self.spacing!r}")
        for name, level in (("start", self.start), ("warm_start", self.warm_start)):
            if level is not None and level <= self.stop:
                raise ValueError(f"sampler.{name} must be over sampler.stop ({self.stop}), got {level}")

    def begin(self, problem: Problem, indices: range, noise_aware: bool) -> tuple[list[int], Tensor]:
        """Step numbers to visit, and the state at the first of them: ``(len(indices), *shape)`` float64.

        The state is ``sqrt(a) x0 + sqrt(1 - a) z``, where ``x0`` is the estimate (zero from a cold start) made to agree
        with the measurements; those are weighed as at noise level 1, or all fully without ``noise_aware``.
        """
        warm = self.warm_start is not None and problem.estimate is not None
        alphas = problem.prior.alphas_cumprod.cpu()
        first = self.warm_start if warm else self.start
        times = timesteps(noise_levels(alphas), first, self.stop, self.steps, self.spacing)
        origin = problem.estimate if warm else None
        guess = torch.zeros(problem.shape, dtype=torch.float64) if origin is None else origin
        x0 = project(problem, guess[None], partial(mean_gain, noise_power=1.0) if noise_aware else full_gain)
        a = alphas[times[0]]
        return times, problem.draw(indices, 0).mul_(square_root(1 - a)).add_(x0.mul_(square_root(a)))
