"""What a user is told beside the results: a sentence each, once, in the log named ``pscx``.

Where nobody configured logging, Python writes such sentences to standard error.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("pscx")
MOST = 1 << 14  # keys that are remembered

_told: set[str] = set()


def tell(sentence: str, once: str = "") -> None:
    """Warn with ``sentence``, unless this process did so before; ``once`` stands for all sentences of one kind."""
    key = once or sentence
    if key in _told:
        return
    if len(_told) >= MOST:
        _told.clear()
    _told.add(key)
    LOGGER.warning("pscx: %s", sentence)


def forget() -> None:
    """Tell everything again: a new run begins."""
    _told.clear()
