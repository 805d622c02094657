"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

from pscx.errors import ImageError
from pscx.run_folder import MARKER, is_run_folder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def image_files(root: str | Path, option: str = "data.root") -> list[Path]:
    """Every PNG, JPEG and WebP under ``root`` (or the file ``root`` itself), sorted by path; hidden files left out.

    Folders in which a run has its results are left out too (:mod:`pscx.run_folder`).

    Raises :class:`ImageError`, naming the ``option``, where ``root`` is missing, is such a folder or holds none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ImageError(f"{option} must be a folder of images or an image, but '{root}' does not exist")
    if is_run_folder(root):
        raise ImageError(f"{option} must be a folder of images, but '{root}' holds the results of a run")
    runs = {marker.parent for marker in root.rglob(MARKER)}
    files = sorted(file for file in root.rglob("*") if _is_image(file) and runs.isdisjoint(file.parents))
    if not files:
        raise ImageError(f"{option} must hold images ({', '.join(SUFFIXES)}), but '{root}' holds none")
    return files


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
