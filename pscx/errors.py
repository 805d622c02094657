"""Errors that a user can cause: one sentence each, shown without a traceback, exit code 2."""

from __future__ import annotations


class PscxError(Exception):
    """Bad input; the message says what, where and what is allowed."""


class StreamError(PscxError):
    """A stream that cannot be decoded: not one of ours, damaged, of another version, prior or arithmetic."""


class CancelledError(PscxError):
    """Work that was ended from outside: see :mod:`pscx.runtime.cancel`."""


class ImageError(PscxError):
    """An image that cannot be read or is of a kind that the codec does not take."""


class LeftOutError(ImageError):
    """Images of a run were left out, and all others are done."""


class UsageError(PscxError):
    """A command line that cannot be understood."""
