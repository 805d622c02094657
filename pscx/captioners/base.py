"""What an encoder may ask of a captioner."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from pscx.registry import Registry
from pscx.runtime.returned import refuse


class Captioner(ABC):
    """Describes images. The encoder alone has one: the caption itself goes into the stream."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    @abstractmethod
    def caption(self, image: NDArray[np.uint8], source: str = "") -> str:
        """A caption of an image ``(height, width, 3)``; empty where there is nothing to say.

        ``source`` is the image's file, or its name in its dataset; empty where it has neither. Raises
        :class:`pscx.errors.PscxError` where the image cannot be described.
        """


def captioned(captioner: Captioner, image: NDArray[np.uint8], source: str) -> str:
    """Its caption. Raises :class:`pscx.errors.PscxError` if that is no text."""
    caption: object = captioner.caption(image, source)
    if not isinstance(caption, str):
        refuse(captioner, "caption", "a text", f"'{type(caption).__name__}'")
    return caption


CAPTIONERS: Registry[Captioner] = Registry("captioner", Captioner)
