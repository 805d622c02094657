"""A request to terminate (SIGTERM) ends a command in order: what was begun is closed, and the exit code is 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """The process was asked to terminate. Whoever handles Ctrl-C handles this in the same way."""


def terminate(signum: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGTERM that raises :class:`Terminated`."""
    raise Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Inside this context SIGTERM raises :class:`Terminated`; only the main thread of a process can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def keep_terminable() -> None:
    """Put the handler back that a library has replaced by its own, inside :func:`terminable`."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
