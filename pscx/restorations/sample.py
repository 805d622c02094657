"""One posterior sample: the best perceptual quality."""

from __future__ import annotations

from torch import Tensor

from pscx.restorations.base import RESTORATIONS, Restoration
from pscx.samplers.base import Problem, Sampler


@RESTORATIONS.register("sample")
class Sample(Restoration):
    """A single draw of the posterior (Elata et al. 2025, section 3.1): restoration ``i`` is draw ``i``."""

    references = ("elata2025psc",)

    exact = True

    def restore(self, problem: Problem, sampler: Sampler, index: int, batch: int) -> Tensor:
        return sampler.sample(problem, range(index, index + 1))[0]
