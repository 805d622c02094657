"""Errors that a user can cause: one sentence each, shown without a traceback, exit code 2."""


class PscxError(Exception):
    """Bad input; the message says what, where and what is allowed."""


class StreamError(PscxError):
    """A stream that cannot be decoded: not one of ours, damaged, of another version, prior or arithmetic."""


class ImageError(PscxError):
    """An image that cannot be read or is of a kind that the codec does not take."""


class LeftOutError(ImageError):
    """Images of a run were left out, and all others are done."""


def sentence_of(error: PscxError) -> str:
    """What it says. One of a data loader's worker process comes with a traceback around it, in torch's own words."""
    text = str(error)
    if not (text.startswith("Caught ") and "Original Traceback" in text):
        return text
    return text.rstrip().rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2]
