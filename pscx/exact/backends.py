"""Which of torch's libraries may compute an exact convolution."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_lock = threading.Lock()
_users = 0
_switched = ExitStack()


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Neither cuDNN nor NNPACK inside: either may round its inputs or transform them.

    They are switches of the whole process: off from the first that enters, of any thread, until the last has left. To
    throw them takes longer than a small convolution's arithmetic, so a network does it once for its layers, which would
    do it for themselves.
    """
    global _users
    with _lock:
        if _users == 0:
            _switched.enter_context(torch.backends.cudnn.flags(enabled=False))
            _switched.enter_context(torch.backends.nnpack.flags(enabled=False))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _switched.close()
