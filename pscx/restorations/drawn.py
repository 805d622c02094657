"""Another restoration, from samples that are drawn with other options."""

from __future__ import annotations

from torch import Tensor

from pscx.restorations.base import RESTORATIONS, Draw, Restoration


@RESTORATIONS.register("drawn")
class Drawn(Restoration):
    """Another restoration, whose samples are drawn with options in place of those of the codec's restoration sampler.

    An option that is none stays as the codec has it. A sampler that lacks one of the others is refused.

    Args:
        restoration: what is made of the samples.
        eta: share of fresh noise in a step, in [0, 1]; with less, samples keep more detail and more error.
        steps: denoiser evaluations (NFE) per sample, at least 1.
        warm_start: noise level of the first step, over 0 (units of the signal).
        stop: noise level of the last step, at least 0.
    """

    references = ("song2021ddim",)

    def __init__(
        self,
        restoration: Restoration,
        eta: float | None = None,
        steps: int | None = None,
        warm_start: float | None = None,
        stop: float | None = None,
    ) -> None:
        if eta is not None and not 0 <= eta <= 1:
            raise ValueError(f"restoration.eta must lie in [0, 1], got {eta}")
        if steps is not None and steps < 1:
            raise ValueError(f"restoration.steps must be at least 1, got {steps}")
        if warm_start is not None and not warm_start > 0:
            raise ValueError(f"restoration.warm_start must be over 0, got {warm_start}")
        if stop is not None and not stop >= 0:
            raise ValueError(f"restoration.stop must be at least 0, got {stop}")
        self.restoration, self.eta, self.steps, self.warm_start, self.stop = restoration, eta, steps, warm_start, stop
        self.exact, self.draws = restoration.exact, restoration.draws
        own = {"eta": eta, "steps": steps, "warm_start": warm_start, "stop": stop}
        self.drawing = {**restoration.drawing, **{key: value for key, value in own.items() if value is not None}}

    def restore(self, draw: Draw, index: int) -> Tensor:
        return self.restoration.restore(draw, index)
