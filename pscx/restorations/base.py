"""What a codec may ask of a final restoration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from pscx.registry import Registry

Draw = Callable[[range], Iterator[Tensor]]
"""Posterior samples of these numbers, micro-batch by micro-batch, each ``(n, channels, height, width)`` float64."""


class Restoration(ABC):
    """Turns all that was measured into one signal."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    exact: bool = False
    """Whether the same draws become the same bits on every machine, in any batch."""

    draws: int = 1
    """Posterior samples that one restoration takes; what a stream may ask for is bounded with it."""

    drawing: Mapping[str, float] = MappingProxyType({})
    """Options of the codec's restoration sampler, by name, that the samples are drawn with in place of its own."""

    @abstractmethod
    def restore(self, draw: Draw, index: int) -> Tensor:
        """Restoration number ``index``, ``(channels, height, width)`` float64, from the samples that ``draw`` gives."""


RESTORATIONS: Registry[Restoration] = Registry("restoration", Restoration)
