"""Work in a thread that reports its steps, as an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from pscx.runtime.cancel import cancellable

T = TypeVar("T")
_RUNNING: dict[Thread, Event] = {}  # running work, and the event that ends it
BEAT = 1.0  # seconds between empty steps, to notice a listener that has gone


class NobodyListensError(Exception):
    """Raised inside work whose listener has gone, to end the work."""


def told(work: Callable[[Callable[[T], None]], None]) -> Iterator[T | None]:
    """Yield each step that ``work(tell)`` tells from a thread of its own; its errors are raised here.

    Where there was nothing for :data:`BEAT` seconds, none is told: so who serves the iterator can see that its listener
    has gone, and close it. Then the work ends the next time that it tells something or is to evaluate a network, and is
    waited for.
    """
    queue: SimpleQueue[T | BaseException | None] = SimpleQueue()
    gone = Event()

    def tell(item: T) -> None:
        if gone.is_set():
            raise NobodyListensError
        queue.put(item)

    def run() -> None:
        try:
            with cancellable(gone.is_set):
                work(tell)
            queue.put(None)
        except BaseException as error:
            queue.put(error)
        finally:
            _RUNNING.pop(thread, None)

    thread = Thread(target=run, daemon=True)
    _RUNNING[thread] = gone
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=BEAT)
            except Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        gone.set()
        thread.join()


def end_all() -> None:
    """End all running work before its next network evaluation, and wait for it."""
    running = list(_RUNNING.items())
    for _, gone in running:
        gone.set()
    for thread, _ in running:
        thread.join()
