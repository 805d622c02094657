"""Optional libraries: extras of the package, imported when a component that needs them is constructed."""

from __future__ import annotations

from importlib import import_module
from traceback import walk_tb
from types import ModuleType

from pscx.errors import PscxError


def required(library: str, extra: str, what: str) -> ModuleType:
    """Import ``library``, which comes with ``pip install 'pscx[extra]'``.

    Raises :class:`PscxError` if it is missing, naming ``what`` needs it and the command that installs it, and if it is
    there and cannot be imported.
    """
    try:
        return import_module(library)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise PscxError(f"{what} needs the library {library}: pip install 'pscx[{extra}]'") from None
        raise PscxError(f"{what} needs the library {library}, which cannot be imported: {error}") from error


TORCHVISION = (
    "torchvision is installed but does not load, and libraries that pscx uses import it: install the build that goes "
    "with your torch, or uninstall it"
)


def broken_torchvision(error: BaseException) -> str | None:
    """A sentence where an error comes from importing torchvision, else none.

    pscx does not need torchvision, but torchmetrics and transformers import it wherever it is installed, and a build
    for another torch fails there in several ways.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        for frame, _ in walk_tb(cause.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] == "torchvision":
                return f"{TORCHVISION} ({str(causes[-1]).strip().splitlines()[0]})"
    return None
