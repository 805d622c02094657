"""Cancelling work between two network evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pscx.errors import CancelledError

Cancel = Callable[[], bool]
"""Whether work is to end now, such as ``threading.Event().is_set``."""

_CANCEL: ContextVar[Cancel | None] = ContextVar("cancel", default=None)


@contextmanager
def cancellable(cancel: Cancel | None) -> Iterator[None]:
    """Inside this context ``cancel`` is called before each network evaluation of this thread; none has no effect."""
    if cancel is None:
        yield
        return
    token = _CANCEL.set(cancel)
    try:
        yield
    finally:
        _CANCEL.reset(token)


def check_cancel() -> None:
    """Raise :class:`pscx.errors.CancelledError` if the work of this thread was cancelled."""
    cancel = _CANCEL.get()
    if cancel is not None and cancel():
        raise CancelledError("the work was cancelled")
