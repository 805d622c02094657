"""Names of results that are valid on every file system."""

from __future__ import annotations

from hashlib import sha256

LONGEST = 200  # bytes; file systems allow 255, with suffixes and numbers
DIGITS = 16


def short_enough(name: str) -> str:
    """``name``, or if it is too long for a file name, its beginning and a digest of all of it."""
    data = name.encode(errors="surrogatepass")
    if len(data) <= LONGEST:
        return name
    beginning = data[: LONGEST - DIGITS - 1].decode(errors="ignore")
    return f"{beginning}_{sha256(data).hexdigest()[:DIGITS]}"
