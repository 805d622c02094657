"""Files of weights that metrics need: where they are published, where they are found, and what is in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

from pscx.errors import PscxError


@dataclass(frozen=True)
class Published:
    """A file of weights as its authors publish it.

    ``digest`` is how its SHA-256 begins, as its name says by torch hub's custom; empty where the name does not.
    """

    url: str
    digest: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def in_torchmetrics(name: str) -> Path:
    """A file or folder of the functional image metrics of torchmetrics, which is not imported for it."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise PscxError("torchmetrics, which pscx requires, is not installed")
    return Path(spec.origin).parent / "functional" / "image" / name


def checkpoints() -> Path:
    """The folder where torch hub, and with it torchvision and torch-fidelity, keeps downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(what: str, published: Published, path: str | None, download: bool) -> Path:
    """The file of weights that ``what``, such as ``lpips``, needs.

    Args:
        what: the metric, for messages.
        published: what is looked for in torch hub's folder where there is no ``path``.
        path: the option ``weights``.
        download: whether to fetch the published file where it is missing.

    Raises:
        PscxError: where it is missing, or is not what was published.
    """
    if path is not None:
        if not Path(path).is_file():
            raise PscxError(f"{what}: no such file of weights: '{path}'")
        return Path(path)
    file = checkpoints() / published.name
    if not file.is_file() and download:
        _fetch(what, published, file)
    if not file.is_file():
        raise PscxError(
            f"{what} needs the weights {published.name}, which are published at {published.url}: put the file into "
            f"{file.parent}, name it with the option weights, or allow the download with download: true"
        )
    if not sha256_of(file).startswith(published.digest):
        raise PscxError(f"{what}: {file} is not the published file: its SHA-256 does not begin with {published.digest}")
    return file


def sha256_of(file: str | Path) -> str:
    """SHA-256 of a file in hexadecimal, computed again only where the file has changed."""
    path = Path(file)
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _fetch(what: str, published: Published, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(published.url, str(file), published.digest or None, progress=False)
    except (OSError, RuntimeError) as error:  # no network; another digest
        raise PscxError(f"{what}: cannot download {published.url}: {error}") from error
