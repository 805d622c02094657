"""Writing files whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pscx.errors import PscxError


class ExistsError(PscxError):
    """An output that already exists and may be overwritten only with ``force``."""


def check_output(path: str | Path, *, force: bool = False) -> None:
    """Raise :class:`PscxError` if ``path`` must not or cannot be written; call this before a long computation.

    A file that exists is refused without ``force`` (:class:`ExistsError`); a folder, a device or a pipe always. A link
    is treated as its target.
    """
    path = Path(path)
    try:
        mode = _mode(path)
        target = _target(path)
    except OSError as error:
        raise PscxError(f"cannot write '{path}': {error.strerror or error}") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise PscxError(f"'{path}' is a folder: the output must name a file")
    if mode is not None and not stat.S_ISREG(mode):
        raise PscxError(f"'{path}' is not a regular file and is never overwritten")
    if mode is not None and not force:
        raise ExistsError(f"'{path}' exists already: give --force to overwrite it, or choose another name")
    check_folder(target.parent, path)


def write_whole(path: str | Path, data: bytes, *, force: bool = False) -> None:
    """Write ``data`` as the file ``path``, whole or not at all: into a file beside it, then moved into place.

    Missing folders are created. A link stays, and its target is written. Without ``force`` a file that appears while
    this one is written is not replaced. Raises :class:`PscxError` as :func:`check_output` does, and if the file system
    refuses; then neither ``path`` nor a partial file is left behind.
    """
    path = Path(path)
    check_output(path, force=force)
    try:
        target = _target(path)
        partial = target.with_name(f".{uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if force:
                partial.replace(target)
            else:
                _publish(partial, target)
        finally:
            with suppress(OSError):
                partial.unlink()
    except FileExistsError as error:
        raise ExistsError(f"'{path}' was created in the meantime and is not overwritten without --force") from error
    except OSError as error:
        raise PscxError(f"cannot write '{path}': {error.strerror or error}") from error


def _publish(partial: Path, target: Path) -> None:
    """Give a finished file its name. Raises ``FileExistsError`` if the name is taken."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name, then replace what is our own
        target.open("xb").close()
        try:
            partial.replace(target)
        except OSError:
            target.unlink()
            raise


def _mode(path: Path) -> int | None:
    """What kind of file a path names, through links; none where there is none."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _target(path: Path) -> Path:
    """The file that writing ``path`` makes or replaces: what a link points at, through all links."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if path.exists() and not (target.exists() and path.samefile(target)):  # such as an open file that was deleted
        raise OSError(0, "its link points to a deleted file")
    return target


def check_folder(folder: Path, path: Path) -> None:
    """Raise :class:`PscxError`, naming the output ``path``, where ``folder`` neither is one nor can be made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise PscxError(f"cannot write '{path}': '{folder}' is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PscxError(f"cannot write '{path}': the folder '{folder}' is not writable")
