"""Warnings to the user: one sentence each, once per process, in the log ``pscx``.

Without a logging configuration Python writes them to standard error.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("pscx")
MOST = 1 << 14  # keys that are remembered

_told: set[str] = set()


def tell(sentence: str, once: str = "") -> None:
    """Warn with ``sentence``, once per process; ``once`` is a key shared by all sentences of one kind."""
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
