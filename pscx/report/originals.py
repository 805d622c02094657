"""Finds the original images of a run, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

from pscx.data.folder import FolderData, Photos
from pscx.errors import ImageError
from pscx.evaluation.kept import pixels_digest
from pscx.rate_control.trials import Pixels
from pscx.registry import class_path
from pscx.report.runs import Run

FOLDER_DATA = (class_path(FolderData), "pscx.data.FolderData", "FolderData", "folder")


class Originals:
    """Finds originals; ``folder`` replaces each run's ``data.root``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._photos = lru_cache(Photos)

    def of(self, run: Run, image: str) -> tuple[Pixels | None, str]:
        """The original of an image, or none and why.

        An image whose pixels have another digest than in the run is not the original.
        """
        if self._folder is None and run.config["data"].get("class_path") not in FOLDER_DATA:
            return None, "the run's data module says of no folder: give --originals FOLDER"
        options: Mapping[str, Any] = run.config["data"].get("init_args") or {}
        if not all(isinstance(options.get(key), (int, NoneType)) for key in ("subset", "crop")):
            return None, "the run's data.subset and data.crop must be integers or null"
        named = str(self._folder or options.get("root", "bundled"))
        try:
            root = self._folder or FolderData(named).root
            photos = self._photos(root, options.get("subset"), options.get("crop"))
            number = photos.names.index(image)
            photo = photos[number]
        except (ImageError, ValueError, TypeError) as error:
            reason = f"'{named}' holds none of that name" if isinstance(error, ValueError) else str(error)
            return None, f"{reason}: give --originals FOLDER"
        if photo["error"]:
            return None, photo["error"]
        pixels: Pixels = photo["pixels"].movedim(0, -1).numpy()
        if pixels_digest(pixels) != run.digest(image):
            return None, f"'{photos.files[number]}' is not the image that was compressed: give --originals FOLDER"
        return pixels, ""
