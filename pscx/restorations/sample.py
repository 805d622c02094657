"""One posterior sample: the best perceptual quality."""

from __future__ import annotations

from torch import Tensor

from pscx.restorations.base import RESTORATIONS, Draw, Restoration


@RESTORATIONS.register("sample")
class Sample(Restoration):
    """A single draw of the posterior (Elata et al. 2025, section 3.1): restoration ``i`` is draw ``i``."""

    references = ("elata2025psc",)

    exact = True

    def restore(self, draw: Draw, index: int) -> Tensor:
        return next(draw(range(index, index + 1)))[0]
