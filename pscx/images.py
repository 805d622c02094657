"""Reading and writing image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """One image file as RGB pixels ``(height, width, 3)``, uint8, EXIF orientation applied."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
