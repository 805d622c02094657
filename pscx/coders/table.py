"""Files of probabilities: what ``pscx fit`` learnt about the symbols of a codec."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from pscx.coders.binarization import CONTEXTS, DECISIONS, WHOLE, student_table
from pscx.registry import NAME
from pscx.runtime.safe_yaml import read_json
from pscx.signal.distributions import Integers

SHIPPED = Path(__file__).parent / "tables"
VARIABLE = "PSCX_TABLES"
SEGMENT_LIMIT = 1 << 12


@dataclass(frozen=True)
class Table:
    """Probabilities of yes in units of 1/65536, ``(segments, CONTEXTS, DECISIONS)``; the last holds further on."""

    chances: Integers

    def __post_init__(self) -> None:
        shape = self.chances.shape
        if len(shape) != 3 or not 1 <= shape[0] <= SEGMENT_LIMIT or shape[1:] != (CONTEXTS, DECISIONS):
            raise ValueError(f"a table has the shape (segments, {CONTEXTS}, {DECISIONS}), got {shape}")
        if not ((self.chances > 0) & (self.chances < WHOLE)).all():
            raise ValueError(f"probabilities of a table lie in 1..{WHOLE - 1}")

    @property
    def digest(self) -> str:
        """A word that identifies the content."""
        return "t" + sha256(self.chances.astype("<u2").tobytes()).hexdigest()[:8]

    def of(self, segment: int) -> Integers:
        """Probabilities in a segment, ``(CONTEXTS, DECISIONS)``."""
        part: Integers = self.chances[min(segment, len(self.chances) - 1)]
        return part

    def to_json(self) -> bytes:
        """The content of a file."""
        return json.dumps({"segments": self.chances.tolist()}, separators=(",", ":")).encode()


def student() -> Table:
    """The table that nothing was learnt for: Student's t with 4 degrees of freedom."""
    return Table(student_table()[None])


def read_table(file: Path) -> Table:
    """Raises ``ValueError`` with the name of the file where it holds no table."""
    try:
        segments = np.array(read_json(file)["segments"])
        if segments.dtype.kind != "i":
            raise ValueError("probabilities of a table are whole numbers")
        return Table(segments.astype(np.int64))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{file}' holds no table of a coder: {error}") from error


def find_table(name: str, digest: str | None) -> Table:
    """The table of that name: ``NAME.json`` in the folder that PSCX_TABLES names, or else one that ships with pscx.

    With a ``digest``, as a stream has it, whichever of the two has that digest: a table of one's own may take a name
    that ships, and streams of both decode. Raises ``ValueError`` where there is none, or its digest is another one.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"coder.table must be a plain lower-case word, the name of a table, got {name!r}")
    folders = [*([Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []), SHIPPED]
    files = [folder / f"{name}.json" for folder in folders if (folder / f"{name}.json").is_file()]
    if not files:
        raise ValueError(
            f"coder.table '{name}' is not known: put {name}.json into a folder and name that folder in {VARIABLE}"
        )
    return _kept(files[0]) if digest is None else _with_digest(files, name, digest)


def _with_digest(files: list[Path], name: str, digest: str) -> Table:
    """The first of some files whose content has a digest, whatever the others hold."""
    found = []
    for file in files:
        try:
            table = _kept(file)
        except ValueError as error:
            found.append(str(error))
            continue
        if table.digest == digest:
            return table
        found.append(f"'{file}' has '{table.digest}'")
    raise ValueError(f"coder.table '{name}' must be the one with digest '{digest}', but {' and '.join(found)}")


def _kept(file: Path) -> Table:
    return _cached(file, file.stat().st_mtime_ns)


@lru_cache(8)
def _cached(file: Path, changed: int) -> Table:
    return read_table(file)
