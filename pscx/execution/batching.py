"""Several images at once, whose network calls are made together.

Each image has its own loop, in a thread of its own, and this is where they meet: a loop that needs the denoiser waits
until all others do too, and calls for the same noise level and size become one. Threads take turns, one runs at a time,
in an order that depends on the images alone. Only calls of an exact prior are merged, whose numbers do not depend on
the batch: so nothing that an image comes to depends on the images beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Semaphore, Thread, current_thread
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.priors.base import Prior

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Task(Generic[T_co]):
    """What is to be done with one image; ``shares`` is false where its calls must not be merged with others.

    ``needs`` is the memory that it takes, in bytes, where that is to be bounded.
    """

    do: Callable[[], T_co]
    shares: bool = True
    needs: int = 0


def together(tasks: Iterable[Task[T]], size: int, room: int | None = None) -> Iterator[T | Exception]:
    """What each task returned, or the exception that it raised, in the order of the tasks.

    At most ``size`` tasks are under way at a time, and the next is taken from ``tasks`` when there is a place. With
    ``room``, in bytes, those under way need no more than that together, unless one alone does. One
    that does not share runs from beginning to end while the others wait. What is no ``Exception``, such as
    ``KeyboardInterrupt``, ends all tasks at their next call of a denoiser and is raised. Raises ``ValueError`` for a
    ``size`` below 1.
    """
    if size < 1:
        raise ValueError(f"batch must be at least 1, got {size}")
    return _Table(tasks, size, room).results()


def denoise(prior: Prior, x: Tensor, sigma: float) -> Tensor:
    """:meth:`pscx.priors.Prior.denoise`, together with what other images ask for where that changes no bit."""
    image = current_thread()
    if isinstance(image, _Image) and prior.exact and not x.requires_grad:
        return image.ask(_Call(prior, x, sigma))
    return prior.denoise(x, sigma)


def clock() -> float:
    """Seconds from an arbitrary origin, as ``time.perf_counter``, not counting time blocked on other images.

    The time of a call that several images share is divided by their numbers of samples.
    """
    image = current_thread()
    return time.perf_counter() - (image.idle if isinstance(image, _Image) else 0.0)


@dataclass
class _Call:
    """A call of a denoiser that an image waits for, then its answer or what it raised, and its share of the time."""

    prior: Prior
    x: Tensor
    sigma: float
    answer: Tensor | Exception | None = None
    seconds: float = 0.0

    @property
    def kind(self) -> tuple[object, ...]:
        """Calls of one kind can be made as one."""
        return id(self.prior), self.sigma, self.x.shape[1:], self.x.dtype, self.x.device


class _Stopped(BaseException):
    """Ends the thread of an image; no handler of errors is meant to catch it."""


class _Image(Thread, Generic[T]):
    """The thread of one image: runs only between :meth:`resume` and its next call of a denoiser, or its end."""

    def __init__(self, number: int, task: Task[T]) -> None:
        super().__init__(daemon=True)
        self.number, self.do, self.needs = number, task.do, task.needs
        self.call: _Call | None = None
        self.result: list[T] = []
        self.error: BaseException | None = None
        self.idle = 0.0
        self._stopped = False
        self._turn, self._back = Semaphore(0), Semaphore(0)
        self._inference = torch.is_inference_mode_enabled()  # each thread has its own
        self.start()

    def run(self) -> None:
        self._turn.acquire()
        try:
            if not self._stopped:
                with torch.inference_mode(self._inference):
                    self.result.append(self.do())
        except BaseException as error:
            self.error = error
        finally:
            self.call = None
            self._back.release()

    def ask(self, call: _Call) -> Tensor:
        """Wait until the call is made. In the image's own thread."""
        if self._stopped:
            raise _Stopped
        started = time.perf_counter()
        self.call = call
        self._back.release()
        self._turn.acquire()
        if self._stopped:
            raise _Stopped
        self.idle += time.perf_counter() - started - call.seconds
        if isinstance(call.answer, Exception):
            raise call.answer
        assert call.answer is not None
        return call.answer

    def resume(self) -> None:
        """Let the image run until it waits again, with :attr:`call` set, or ends."""
        self.call = None
        self._turn.release()
        self._back.acquire()

    def stop(self) -> None:
        """End the image's thread, now where it waits and at its next call where it runs."""
        self._stopped = True
        self._turn.release()
        self.join()


class _Table(Generic[T]):
    """The images under way, in order of their numbers, and the results that were not handed out yet."""

    def __init__(self, tasks: Iterable[Task[T]], size: int, room: int | None) -> None:
        self._queue, self._size, self._room = iter(enumerate(tasks)), size, room
        self._waiting: tuple[int, Task[T]] | None = None  # for room
        self._images: list[_Image[T]] = []
        self._results: dict[int, T | Exception] = {}

    def results(self) -> Iterator[T | Exception]:
        following = 0
        try:
            while True:
                self._fill()
                while following in self._results:
                    yield self._results.pop(following)
                    following += 1
                if not self._images:
                    return
                self._serve()
        finally:
            for image in self._images:
                image.stop()

    def _fill(self) -> None:
        """Begin as many images as there are places for."""
        while len(self._images) < self._size:
            number, task = self._waiting or next(self._queue, (0, None))
            if task is None:
                return
            self._waiting = None if self._fits(task) else (number, task)
            if self._waiting:
                return
            if task.shares and self._size > 1:
                image = _Image(number, task)
                self._images.append(image)
                self._resume(image)
            else:
                self._results[number] = _attempt(task.do)

    def _fits(self, task: Task[T]) -> bool:
        """Whether there is room beside the images under way."""
        if self._room is None or not self._images:
            return True
        return sum(image.needs for image in self._images) + task.needs <= self._room

    def _resume(self, image: _Image[T]) -> None:
        image.resume()
        if image.call is not None:
            return
        image.join()
        self._images.remove(image)
        if image.error is not None and not isinstance(image.error, Exception):
            raise image.error
        self._results[image.number] = image.result[0] if image.error is None else image.error

    def _serve(self) -> None:
        """Make one network call, and let the images go on that waited for it.

        The noisiest level comes first: an image that is behind catches up with the others, and shares calls from there.
        """
        calls = {image: image.call for image in self._images if image.call is not None}
        first = max(calls.values(), key=lambda call: call.sigma)
        served = [image for image, call in calls.items() if call.kind == first.kind]
        _make([calls[image] for image in served])
        for image in served:
            self._resume(image)


def _attempt(do: Callable[[], T]) -> T | Exception:
    try:
        return do()
    except Exception as error:
        return error


def _make(calls: list[_Call]) -> None:
    """Answer calls of one kind by one call of the network. If that fails, one by one: each image has its own error."""
    started = time.perf_counter()
    sizes = [len(call.x) for call in calls]
    try:
        with torch.no_grad():
            x0 = calls[0].prior.denoise(torch.cat([call.x for call in calls]), calls[0].sigma)
    except Exception as error:
        if len(calls) > 1:
            for call in calls:
                _make([call])
            return
        calls[0].answer = error
    else:
        for call, part in zip(calls, torch.split(x0, sizes), strict=True):
            call.answer = part
    seconds = time.perf_counter() - started
    for call, size in zip(calls, sizes, strict=True):
        call.seconds = seconds * size / sum(sizes)


def in_place(tasks: Iterable[Task[T]], batch: int) -> list[T | PscxError]:
    """The results of tasks, with an error of one image in its place; raises any other."""
    results: list[T | PscxError] = []
    for result in together(tasks, batch):
        if isinstance(result, Exception) and not isinstance(result, PscxError):
            raise result
        results.append(result)
    return results
