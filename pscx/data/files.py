"""Finds the images of a folder."""

from __future__ import annotations

import os
import stat
import sys
from functools import cache
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pscx.errors import ImageError
from pscx.runtime.printing import printable
from pscx.runtime.run_folder import is_run_folder
from pscx.runtime.suffixes import IMAGES as SUFFIXES
from pscx.runtime.walk import walk

__all__ = ["SUFFIXES", "image_files"]


def image_files(root: str | Path, option: str = "data.root") -> list[Path]:
    """Every image under ``root`` (or the file ``root`` itself), sorted by path; see :func:`pscx.runtime.walk.walk`.

    Left-out files are counted in one line on stderr. Raises :class:`ImageError`, naming the ``option``, where
    ``root`` is missing, holds no image or is the folder of a run.
    """
    if root == "":
        raise ImageError(f"{option} must not be empty: '.' is the current folder")
    root = Path(root)
    try:
        mode = os.stat(root).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError for a zero byte in the name
        raise ImageError(f"{option} must be a folder of images or an image, but '{root}' does not exist") from None
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise ImageError(f"{option} must be a folder of images or an image, but '{root}' {why}") from error
    if stat.S_ISREG(mode):
        return [root]
    if not stat.S_ISDIR(mode):
        raise ImageError(f"{option} must be a folder of images or an image, but '{root}' is neither")
    if is_run_folder(root):
        raise ImageError(f"{option} must be a folder of images, but '{root}' holds the results of a pscx run")
    found = walk(root, SUFFIXES)
    if not found.files:
        left_out = f"; left out: {found.left_out}" if found.left_out else ""
        raise ImageError(f"{option} must hold images ({', '.join(SUFFIXES)}), but '{root}' holds none{left_out}")
    if found.notice:
        _say(found.notice)
    return found.files


@cache  # setup is called for each stage, and in an ablation for each cell
@rank_zero_only
def _say(notice: str) -> None:
    print(printable(notice), file=sys.stderr, flush=True)
