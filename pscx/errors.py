"""Errors that a user can cause: one sentence each, shown without a traceback, exit code 2."""


from __future__ import annotations

from pscx.printing import printable


class PscxError(Exception):
    """Bad input; the message says what, where and what is allowed."""


class StreamError(PscxError):
    """A stream that cannot be decoded: not one of ours, damaged, of another version, prior or arithmetic."""


class CancelledError(PscxError):
    """Work that was ended from outside: see :mod:`pscx.cancel`."""


class ImageError(PscxError):
    """An image that cannot be read or is of a kind that the codec does not take."""


def sentence_of(error: PscxError) -> str:
    """What it says, fit for a terminal.

    One of a data loader's worker process comes with a traceback around it, in torch's own words.
    """
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.rstrip().rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2]
    return printable(text)
