"""Standard input and output as files, which ``-`` names on the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pscx.errors import PscxError

STANDARD = Path("-")
"""Stands for standard input or output. A file of that name is ``./-``; see :func:`named`."""
INPUT_LIMIT = 1 << 32


def named(text: str) -> Path:
    """The path that an argument names: :data:`STANDARD` for ``-`` alone. Raises ``ValueError`` for an empty one."""
    if not text:
        raise ValueError("must not be empty ('.' is the current folder)")
    path = Path(text)
    return path.absolute() if path == STANDARD and text != "-" else path


def read_standard(limit: int = INPUT_LIMIT) -> bytes:
    """All of standard input. Raises :class:`PscxError` where it is a terminal, or has more than ``limit`` bytes."""
    if sys.stdin is None:
        raise PscxError("'-' reads standard input, and that is closed: redirect a file to it")
    if sys.stdin.isatty():
        raise PscxError("'-' reads standard input, and that is a terminal: redirect a file to it")
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise PscxError(f"standard input exceeds {limit} bytes, the limit for an input")
    return data


def check_standard_output() -> None:
    """Raise :class:`PscxError` where standard output is a terminal; ask this before a long computation."""
    if sys.stdout is None:
        raise PscxError("'-' writes standard output, and that is closed: redirect it, or name a file with -o")
    if sys.stdout.isatty():
        raise PscxError("'-' writes standard output, and that is a terminal: redirect it, or name a file with -o")


def write_standard(data: bytes) -> None:
    """Write to standard output, which text does not go to then."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def is_standard_output(path: Path) -> bool:
    """Whether a path, such as ``/dev/stdout`` or a link to it, names what standard output is."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file, or standard output is closed or none of the system's
        return False
