"""Writing files whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pscx.errors import PscxError


def check_output(path: str | Path, *, force: bool = False) -> None:
    """Raise :class:`PscxError` where ``path`` must not be written; ask this before a long computation.

    A file that exists is refused without ``force``; a folder, a device or a pipe always.
    """
    path = Path(path)
    try:
        folder, file, exists = path.is_dir(), path.is_file(), path.exists()
    except OSError as error:
        raise PscxError(f"cannot write '{path}': {error.strerror or error}") from error
    if folder:
        raise PscxError(f"'{path}' is a folder: the output must name a file")
    if exists and not file:
        raise PscxError(f"'{path}' is not a regular file and is never overwritten")
    if exists and not force:
        raise PscxError(f"'{path}' exists already: give --force to overwrite it, or choose another name")


def write_whole(path: str | Path, data: bytes, *, force: bool = False) -> None:
    """Write ``data`` as the file ``path``, whole or not at all: into a file beside it, then moved into place.

    Missing folders on the way are made. Raises :class:`PscxError` as :func:`check_output` does, and where the file
    system refuses; then neither ``path`` nor a partial file is left behind.
    """
    path = Path(path)
    check_output(path, force=force)
    partial = path.with_name(f".{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PscxError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
