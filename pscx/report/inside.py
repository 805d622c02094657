"""Keeps a report inside the folders that it was given, whatever their tables say."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from pscx.errors import PscxError


def is_plain(name: str) -> bool:
    """Whether a name is a valid file name on every system: no path, not hidden, only printable characters."""
    return PureWindowsPath(name).name == name != "" and name.isprintable() and not name.startswith(".")


def file_inside(folder: Path, *parts: str) -> Path:
    """The file ``folder / parts``. Raises :class:`PscxError` if it is no file or outside ``folder``."""
    path = folder.joinpath(*parts)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise PscxError(f"'{path}' leads out of '{folder}': a report reads only the folders that it is given")
    if not path.is_file():
        raise PscxError(f"'{path}' is missing or not a file")
    return path
