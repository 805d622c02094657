"""Which noise levels a sampler visits and where it begins: the options that all samplers share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isnan

import torch
from torch import Tensor

from pscx.samplers.base import Problem
from pscx.samplers.consistency import full_gain, mean_gain, project
from pscx.samplers.steps import SPACINGS, schedule


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
        if isnan(self.stop):
            raise ValueError(f"sampler.stop must be a number, got {self.stop}")
        for name, level in (("start", self.start), ("warm_start", self.warm_start)):
            if level is not None and not level > self.stop:
                raise ValueError(f"sampler.{name} must be over sampler.stop ({self.stop}), got {level}")

    def begin(self, problem: Problem, indices: range, noise_aware: bool) -> tuple[list[float], Tensor]:
        """Noise levels to visit, and the state at the first of them: ``(len(indices), *shape)`` float64.

        The state is ``x0 + sigma z``, where ``x0`` is the estimate (zero from a cold start) made to agree with the
        measurements; those are weighed as at noise level 1, or all fully without ``noise_aware``.
        """
        warm = self.warm_start is not None and problem.estimate is not None
        first = self.warm_start if warm else self.start
        levels = schedule(problem.prior, first, self.stop, self.steps, self.spacing)
        origin = problem.estimate if warm else None
        guess = torch.zeros(problem.shape, dtype=torch.float64, device=problem.device) if origin is None else origin
        x0 = project(problem, guess[None], partial(mean_gain, sigma=1.0) if noise_aware else full_gain)
        return levels, problem.draw(indices, 0).mul_(levels[0]).add_(x0)
