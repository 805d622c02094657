"""Folders of weights: on this machine, or fetched from the hub once and kept in its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pscx.runtime.safe_yaml import read_json

WEIGHTS = (".safetensors", ".bin")
CONFIGS = ("*config.json", "*/*config.json", "model_index.json")
_MISSED: ContextVar[list[str] | None] = ContextVar("missed", default=None)


@contextmanager
def no_downloads() -> Iterator[list[str]]:
    """Inside this context :func:`local_folder` uses only folders and the hub's cache, never the network.

    Yields the list of names that it did not find.
    """
    missed: list[str] = []
    token = _MISSED.set(missed)
    try:
        yield missed
    finally:
        _MISSED.reset(token)


def local_folder(path: str | Path, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The folder ``path``, or else the hub's repository of that name, as a folder on this machine.

    Only files that match one of the patterns ``wanted`` and none of ``unwanted`` are downloaded, once. Without a
    network and inside :func:`no_downloads` the cache is used. Raises ``FileNotFoundError`` with one sentence if there
    is neither, and ``ValueError`` if one of its configurations is not safe to read.
    """
    folder = Path(path) if Path(path).is_dir() else _fetched(path, wanted, unwanted)
    for file in (file for pattern in CONFIGS for file in sorted(folder.glob(pattern))):
        if not isinstance(read_json(file), dict):
            raise ValueError(f"'{file}' must hold a mapping")
    return folder


def _fetched(path: str | Path, wanted: Sequence[str], unwanted: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    missed = _MISSED.get()
    options: dict[str, Any] = {"allow_patterns": list(wanted), "ignore_patterns": list(unwanted)}
    if missed is not None:
        options["local_files_only"] = True
    try:
        return Path(snapshot_download(str(path), **options))
    except Exception as error:  # of several libraries, depending on the client's version and on what went wrong
        if missed is not None:
            missed.append(str(path))
            raise FileNotFoundError("it is not on this machine, and downloads are off by default") from error
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"there is no such folder, and the hub returned none: {reason}") from error


def whole(load: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Load a folder with the ``from_pretrained`` given as ``load``, with every weight from there.

    Raises ``ValueError`` if a weight is missing: diffusers and transformers would fill it with random numbers. Raises
    ``OSError`` if the folder only has weights of a variant.
    """
    check_variant(folder)
    network, facts = load(folder, output_loading_info=True, **options)
    if facts["missing_keys"]:
        raise ValueError(f"{folder / 'config.json'} has no weights for {min(facts['missing_keys'])}")
    return network


def check_variant(folder: Path) -> None:
    """Raise ``OSError`` where all weights of a folder are of a variant, as ``model.fp16.safetensors`` is.

    The variant changes the prior's fingerprint, so none is chosen automatically.
    """
    names = [file.name for file in sorted(folder.glob("*")) if file.suffix in WEIGHTS]
    variants = [name for name in names if name.count(".") > 1]
    if variants and variants == names:
        stem, variant, *_, suffix = variants[0].split(".")
        variant, _, shard = variant.partition("-")
        plain = f"{stem}{'-' + shard if shard else ''}.{suffix}"
        raise OSError(f"{folder / variants[0]} has the variant '{variant}', which is not read: rename it to {plain}")
