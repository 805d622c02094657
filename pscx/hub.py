"""Folders of weights: on this machine, or fetched from the hub once and kept in its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def local_folder(path: str | Path, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The folder ``path``, or else the hub's repository of that name, as a folder on this machine.

    Only files that match one of the patterns ``wanted`` and none of ``unwanted`` are fetched, once; without a network
    the cache is used. Raises ``FileNotFoundError`` in one sentence where neither is there.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(wanted), ignore_patterns=list(unwanted)))
    except Exception as error:  # of several libraries, depending on the client's version and on what went wrong
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"there is no such folder, and the hub gave none: {reason}") from error
