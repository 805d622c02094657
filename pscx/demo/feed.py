"""Work that tells what it does while it does it, as an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class NobodyListensError(Exception):
    """Raised inside work whose listener has gone, so that it ends."""


def told(work: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """What ``work(tell)`` tells, as soon as it does, from a thread of its own; what it raises is raised here.

    Where the iterator is closed, the work ends the next time that it tells something, and is waited for.
    """
    queue: SimpleQueue[T | BaseException | None] = SimpleQueue()
    gone = Event()

    def tell(item: T) -> None:
        if gone.is_set():
            raise NobodyListensError
        queue.put(item)

    def run() -> None:
        try:
            work(tell)
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        gone.set()
        thread.join()
