"""What a codec may ask of a final restoration."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pscx.registry import Registry
from pscx.samplers.base import Problem, Sampler


class Restoration(ABC):
    """Turns all that was measured into one signal."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/citations.bib``, or whole BibTeX entries."""

    exact: bool = False
    """Whether the same draws become the same bits on every machine, in any batch."""

    draws: int = 1
    """Posterior samples that one restoration takes; what a stream may ask for is bounded with it."""

    @abstractmethod
    def restore(self, problem: Problem, sampler: Sampler, index: int, batch: int) -> Tensor:
        """Restoration number ``index``, ``(channels, height, width)``; at most ``batch`` draws a network call."""


RESTORATIONS: Registry[Restoration] = Registry("restoration", Restoration)
