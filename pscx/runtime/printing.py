"""Makes untrusted text, such as a file name or a word of a stream, safe for a terminal."""

from __future__ import annotations

import sys
import unicodedata

LONGEST = 2000  # characters of a sentence
UNFIT = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats such as the direction of text, surrogates, ends of lines
JOINERS = "\u200c\u200d"  # formats that scripts and emoji are written with


def printable(text: str, longest: int = LONGEST) -> str:
    """``text`` in one line, with control characters escaped as ``\\x1b``; long text is shortened in the middle.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _shortened("".join(map(_fit, _shortened(text, longest))), longest)


def complain(sentence: str) -> None:
    """Print a sentence on stderr, as ``pscx: ...``."""
    print(f"pscx: {printable(sentence)}", file=sys.stderr, flush=True)


def _fit(character: str) -> str:
    if character in JOINERS or unicodedata.category(character) not in UNFIT:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _shortened(text: str, longest: int) -> str:
    tail = longest // 4
    return text if len(text) <= longest else f"{text[: longest - tail - 5]} ... {text[-tail:]}"


def sentence_of(error: Exception) -> str:
    """What it says, fit for a terminal.

    One of a data loader's worker process comes with a traceback around it, in torch's own words.
    """
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.rstrip().rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2]
    return printable(text)
