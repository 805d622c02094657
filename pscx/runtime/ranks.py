"""Environment variables that give the rank of a process."""

from __future__ import annotations

import os

from pscx.errors import PscxError

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def check_ranks() -> None:
    """Raise :class:`PscxError` if one of them is not an integer: Lightning reads them while it is imported."""
    for name in RANKS:
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.isdecimal()):
            raise PscxError(f"the environment variable {name} must be an integer of at least 0, got '{value}'")
