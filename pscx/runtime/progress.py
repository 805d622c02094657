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
    """A bar that counts ``total`` files, and one for each file in progress; nothing without a terminal.

    The first bar ends with the last text given to :meth:`tell`.

    Args:
        what: name of the work, such as ``compress``.
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
        """Show a short summary of the files so far."""
        self._progress.update(self._files, figures=figures)

    def begin(self, name: str) -> Bar:
        """Start a file; several may be in progress."""
        return Bar(self._progress, self._files, name)


class Bar:
    """The bar of one file, until :meth:`end`."""

    def __init__(self, progress: Progress, files: TaskID, name: str) -> None:
        self._progress, self._files, self._name = progress, files, printable(name)
        self._own = progress.add_task(f"  {self._name}", total=None, figures="")

    def advance(self, done: int, total: int) -> None:
        """``done`` of ``total`` iterations of this file are finished; a progress callback for codecs."""
        self._progress.update(self._own, completed=done, total=total)

    def trial(self, number: int, parameter: float | None) -> None:
        """This file is encoded for the ``number``-th time, at that parameter of the quantizer."""
        at = "" if parameter is None else f" at {parameter:.3g}"
        self._progress.reset(self._own, description=f"  {self._name}, trial {number}{at}")

    def end(self) -> None:
        """This file is finished."""
        self._progress.refresh()  # else a short one is gone before it was drawn to its end
        self._progress.remove_task(self._own)
        self._progress.advance(self._files)
