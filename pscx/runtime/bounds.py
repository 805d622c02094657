"""Bounds on the size of a stream's spec, checked before its content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPTH = 8  # objects and lists within each other
KEYS = 64  # of an object
WORD = 64  # characters of a key or a text
ITEMS = 512  # of a list: the gains of a coder have one for each iteration


def check_bounds(value: Any, path: str = "", depth: int = 0) -> None:
    """Raise ``ValueError`` where a tree of plain values is deeper, wider or has longer texts than a stream may have."""
    where = path or "the spec"
    if depth > DEPTH:
        raise ValueError(f"{where} has more than {DEPTH} levels")
    if isinstance(value, str) and len(value) > WORD:
        raise ValueError(f"{where} is a text of {len(value)} characters; at most {WORD} are allowed")
    if isinstance(value, Mapping):
        if len(value) > KEYS:
            raise ValueError(f"{where} has {len(value)} keys; at most {KEYS} are allowed")
        for key, item in value.items():
            if len(key) > WORD:
                raise ValueError(f"{where} has a key of {len(key)} characters; at most {WORD} are allowed")
            check_bounds(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, (list, tuple)):
        if len(value) > ITEMS:
            raise ValueError(f"{where} has {len(value)} items; at most {ITEMS} are allowed")
        for item in value:
            check_bounds(item, path, depth + 1)
