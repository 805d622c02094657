"""Ends the demo so that its temporary files are removed, except after SIGKILL."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside this context SIGTERM and SIGHUP raise ``SystemExit`` with 128 plus their number, so that contexts end.

    From the first of them or Ctrl-C on, further ones are ignored until this context is left: they would interrupt the
    removal. To be used in the main thread.
    """
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (*ENDINGS, signal.SIGINT)}

    def end(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # as under nohup, or in a shell's background
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
