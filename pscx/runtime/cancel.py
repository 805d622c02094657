"""Cancelling work: looked at between any two evaluations of a network, whoever asks for them."""

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
    """Inside this context ``cancel`` is asked before each network evaluation of this thread; none changes nothing."""
    if cancel is None:
        yield
        return
    token = _CANCEL.set(cancel)
    try:
        yield
    finally:
        _CANCEL.reset(token)


def check_cancel() -> None:
    """Raise :class:`pscx.errors.CancelledError` where the work of this thread is to end."""
    cancel = _CANCEL.get()
    if cancel is not None and cancel():
        raise CancelledError("the work was cancelled")
