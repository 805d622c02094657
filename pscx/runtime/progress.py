"""Progress bars on stderr: over files and, inside a file, over the codec's iterations."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pscx.runtime.printing import printable


class Bars:
    """A bar that counts ``total`` files, and one for each file under way; nothing without a terminal.

    Behind the first stands what :meth:`tell` was told last.

    Args:
        what: what is being done, such as ``compress``.
        total: number of files, or none if that is not known.
        visible: whether to show anything where stderr is a terminal.
    """

    def __init__(self, what: str, total: int | None, visible: bool = True) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # names may hold brackets
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            disable=not (visible and console.is_terminal),
            transient=True,
        )
        self._files = self._progress.add_task(what, total=total, figures="")

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, figures: str) -> None:
        """What the files so far came to, in a few words."""
        self._progress.update(self._files, figures=figures)

    def begin(self, name: str) -> Bar:
        """A file begins; several may be under way."""
        return Bar(self._progress, self._files, name)


class Bar:
    """The bar of one file, until :meth:`end`."""

    def __init__(self, progress: Progress, files: TaskID, name: str) -> None:
        self._progress, self._files, self._name = progress, files, printable(name)
        self._own = progress.add_task(f"  {self._name}", total=None, figures="")

    def advance(self, done: int, total: int) -> None:
        """``done`` of ``total`` iterations of this file are over; has the form that the codec calls."""
        self._progress.update(self._own, completed=done, total=total)

    def trial(self, number: int, parameter: float | None) -> None:
        """This file is encoded for the ``number``-th time, at that parameter of the quantizer."""
        at = "" if parameter is None else f" at {parameter:.3g}"
        self._progress.reset(self._own, description=f"  {self._name}, trial {number}{at}")

    def end(self) -> None:
        """This file is over."""
        self._progress.refresh()  # else a short one is gone before it was drawn to its end
        self._progress.remove_task(self._own)
        self._progress.advance(self._files)
