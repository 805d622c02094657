"""What the C library does with the memory of arrays that are no longer needed."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
LARGEST_KEPT = 1 << 25  # bytes of an array; glibc allows no more
MOST_KEPT = 1 << 28  # bytes at the end of the heap


def keep_freed_memory() -> bool:
    """Have this process use freed memory again, where glibc would give it back and fetch it anew; whether it will.

    The loop makes and drops arrays of a few megabytes all the time. By default their pages go back to the system and
    are filled with zeros when the next array takes them, which is a tenth of the time of a small image. Arrays over
    32 MiB, those of large images, are given back as before. It is a setting of the whole process, so only the ``pscx``
    program makes it; a program that imports pscx can call this when it starts. Nothing is changed where the C library
    is another, or where an environment variable ``MALLOC_...`` or ``GLIBC_TUNABLES`` says that somebody has chosen.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, MOST_KEPT))
