"""Libraries that only some components need: extras of the package, imported when such a component is made."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pscx.errors import PscxError


def required(library: str, extra: str, what: str) -> ModuleType:
    """Import ``library``, which comes with ``pip install 'pscx[extra]'``.

    Raises :class:`PscxError` where it cannot be imported, with ``what`` needs it and the command that installs it.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise PscxError(f"{what} needs the library {library}, which cannot be imported: {error}") from error
        raise PscxError(f"{what} needs the library {library}: pip install 'pscx[{extra}]'") from None
