"""Which of torch's libraries may compute an exact convolution."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Inside(threading.local):
    now = False


_inside = _Inside()


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Neither cuDNN nor NNPACK inside: either may round its inputs or transform them.

    To switch them takes longer than a small convolution's arithmetic, so a network does it once and its layers, which
    would do it for themselves, find it done.
    """
    if _inside.now:
        yield
        return
    _inside.now = True
    try:
        with torch.backends.cudnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        _inside.now = False
