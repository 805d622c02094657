"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def image_files(root: str | Path) -> list[Path]:
    """Every PNG, JPEG and WebP under ``root`` (or ``root`` itself), sorted by path.

    Raises ``FileNotFoundError`` where ``root`` is missing or holds none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"data.root: no such file or folder: '{root}'")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"data.root: no images in '{root}': expected files ending in {', '.join(SUFFIXES)}")
    return files
