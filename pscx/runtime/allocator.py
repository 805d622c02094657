"""Setting of the C library for freed memory of arrays."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
LARGEST_KEPT = 1 << 25  # bytes of an array; glibc allows no more
MOST_KEPT = 1 << 28  # bytes at the end of the heap
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, where glibc would return it to the system; whether the setting was made.

    The loop makes and drops arrays of a few megabytes all the time. By default their pages go back to the system and
    are filled with zeros when the next array takes them, a tenth or more of the time of an image (docs/scaling.md).
    Arrays over 32 MiB, those of large images, are given back as before. It is a setting of the whole process, so only
    the ``pscx`` program makes it; a program that imports pscx can call this when it starts. Nothing is changed with a C
    library that has no such setting, or where an environment variable says that somebody has chosen
    (``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``); an allocator that was preloaded in
    place of glibc's does as it likes.
    """
    if sys.platform != "linux" or any(name in os.environ for name in CHOSEN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST_KEPT), mallopt(TRIM_THRESHOLD, MOST_KEPT)])
