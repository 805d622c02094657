"""Names of results that every file system takes."""

from __future__ import annotations

from hashlib import sha256

LONGEST = 200  # bytes; file systems take 255, suffixes and numbers among them
DIGITS = 16


def short_enough(name: str) -> str:
    """``name``, or where it is too long for a file its beginning and a digest of all of it."""
    data = name.encode(errors="surrogatepass")
    if len(data) <= LONGEST:
        return name
    beginning = data[: LONGEST - DIGITS - 1].decode(errors="ignore")
    return f"{beginning}_{sha256(data).hexdigest()[:DIGITS]}"
