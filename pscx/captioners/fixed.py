"""One caption for every image, written by the user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pscx.captioners.base import CAPTIONERS, Captioner


@CAPTIONERS.register("fixed")
class Fixed(Captioner):
    """The same text for every image.

    Args:
        text: the caption, not empty.

    Raises:
        ValueError: ``text`` is empty.
    """

    references = ()

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ValueError(f"caption.text must not be empty, got {text!r}")
        self.text = text

    def caption(self, image: NDArray[np.uint8], source: str = "") -> str:
        return self.text
