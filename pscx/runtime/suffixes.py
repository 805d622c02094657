"""Extensions of files, in lower case."""

from __future__ import annotations

STREAM = ".pscx"
IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp")
IMAGE_KINDS = "PNG, JPEG, WebP, TIFF or BMP"
