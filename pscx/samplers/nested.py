"""The final restoration of PSC's reference code, Elata et al. 2025: a sampler inside a sampler."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.consistency import full_gain, project, sample_gain
from pscx.samplers.course import Course
from pscx.samplers.dpm_solver import dpm_solver
from pscx.samplers.steps import schedule


@SAMPLERS.register("nested")
class Nested(Sampler):
    """PSC's final restoration (Elata et al. 2025, reference code): DDRM whose clean signal is a sample, not a mean.

    From noise level ``s`` to the next, ``s'``, one step is::

        x0 <- DPM-Solver++ from x to noise level stop, in at most inner_steps steps
        x0 <- x0 + H^T g (y - H x0)
        x  <- x0 + s' z

    All noise is fresh. The gain is ``g = 1 - sqrt(v / (q + v))`` for a measurement of noise variance ``v``, with ``q``
    as in :class:`pscx.samplers.DDRM`; ``noise_aware=False`` sets it to 1, the reference's step. At low noise the
    steps are Langevin dynamics on the posterior. The last step returns ``x0``.

    Args:
        steps: outer steps per sample, at least 1.
        inner_steps: denoiser evaluations (NFE) per outer step, at least 1; fewer at the end of the schedule.
        start: noise level of the first step without an estimate (units of the signal), over ``stop``, or none for
            the prior's highest.
        warm_start: noise level of the first step with an estimate, which fills the unmeasured part; over ``stop``, or
            none to start from the measurements only.
        stop: noise level of the last step, outer and inner.
        spacing: spacing of the steps, outer and inner: ``log`` in the noise level, or ``linear`` along the prior's
            own levels.
        noise_aware: whether measurements are weighted by their noise.
    """

    references = ("elata2025psc", "kawar2022ddrm", "lu2022dpmsolver")

    def __init__(
        self,
        steps: int = 50,
        inner_steps: int = 10,
        start: float | None = None,
        warm_start: float | None = None,
        stop: float = 0.0,
        spacing: str = "linear",
        noise_aware: bool = True,
    ) -> None:
        self.course = Course(steps, start, warm_start, stop, spacing)
        if inner_steps < 1:
            raise ValueError(f"sampler.inner_steps must be at least 1, got {inner_steps}")
        self.inner_steps, self.noise_aware = inner_steps, noise_aware
        self.evaluations = steps * inner_steps

    def sample(self, problem: Problem, indices: range) -> Tensor:
        prior, course = problem.prior, self.course
        levels, x = course.begin(problem, indices, self.noise_aware)
        for step, sigma in enumerate(levels):
            inner = schedule(prior, sigma, course.stop, self.inner_steps, course.spacing)
            gain = partial(sample_gain, sigma=sigma) if self.noise_aware else full_gain
            x0 = project(problem, dpm_solver(prior, x, inner), gain)
            if step + 1 == len(levels):
                break
            x = x0 + levels[step + 1] * problem.draw(indices, step + 1)
        return x0
