"""Right checksums around any content: what a decoder sees of a stream that was written to mislead it."""

from __future__ import annotations

import zlib

from pscx.format.container import MAGIC, STREAM_CHECK, _parse, sealed


def resealed(data: bytes) -> bytes:
    """The same bytes with checksums that match, behind the right magic; the header is what can be read as one."""
    try:
        end = _parse(data)[1]
    except (ValueError, zlib.error):
        end = len(data)
    return sealed(MAGIC + data[len(MAGIC) : 5], data[STREAM_CHECK.stop : end], data[end:])


def sealed_stream(before: bytes, after: bytes) -> bytes:
    """The bytes 3 and 4 of a stream, and those behind its checksums."""
    return resealed(MAGIC + before + bytes(4) + after)
