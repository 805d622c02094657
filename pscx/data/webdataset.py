"""Photographs from WebDataset shards: tar files on disk, behind a URL or in an object store."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from pscx.data.base import PhotoData
from pscx.data.files import SUFFIXES
from pscx.data.folder import plain, unique
from pscx.data.shards import ShardedPhotos
from pscx.errors import ImageError
from pscx.runtime.extras import required


class WebDatasetData(PhotoData):
    """Every PNG, JPEG, WebP, TIFF and BMP file of tar files, read with the library WebDataset as a stream.

    An image's name is that of its shard, ``__``, and its path in the tar file, as in :class:`FolderData`. Needs
    ``pip install 'pscx[data]'``.

    Args:
        urls: a tar file, or several, as WebDataset writes them: ``photos-{0000..0099}.tar``, or with ``*`` for files.
            A path, ``https:``, ``s3:``, ``gs:``, or ``pipe:`` with a command whose output is read. For URLs
            WebDataset calls curl, aws or gsutil.
        subset: take the first so many images, or all; each process then reads the shards from their beginning.
        crop: side of a square cut from the middle, at least 16 pixels, or the whole image.
        num_workers: processes that read images.
        batch_size: images that are evaluated at once, at least 1, as in :class:`FolderData`.

    Raises:
        ValueError: for an option outside its range.
        PscxError: where the library is missing.
        ImageError: in ``setup``, if a file does not exist. Errors of a single image or a part of a shard are in an
            item, see :class:`pscx.data.shards.ShardedPhotos`.
    """

    references = ()

    def __init__(
        self,
        urls: str | list[str],
        subset: int | None = None,
        crop: int | None = None,
        num_workers: int = 0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(subset, crop, num_workers, batch_size)
        _library()
        self.urls = [urls] if isinstance(urls, str) else urls

    def setup(self, stage: str) -> None:
        urls = [url for text in self.urls for url in expanded(text)]
        if not urls:
            raise ImageError("data.urls must name at least one tar file, got none")
        shards = [TarShard(name, url) for name, url in zip(shard_names(urls), urls, strict=True)]
        self.photos = ShardedPhotos(shards, self.subset, self.crop)


@dataclass(frozen=True)
class TarShard:
    """The images of one tar file, in their order; a :class:`pscx.data.shards.Shard`."""

    name: str
    url: str

    def images(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Raises what WebDataset does where the URL cannot be read, ``tarfile.TarError`` where it is damaged."""
        taken: set[str] = set()
        opened: Any = _library().gopen(self.url)
        away = False  # the caller has control
        try:
            with opened as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    if member.isreg() and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                        content = archive.extractfile(member)
                        assert content is not None  # it is regular
                        key = unique(plain("__".join(path.with_suffix("").parts)), taken)
                        away = True
                        yield f"{self.name}__{key}", content.read
                        away = False
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps the headers of all
        except OSError:
            if not away:  # a caller that stops early breaks the writer's pipe
                raise


class _Member(tarfile.TarInfo):
    """A header that is checked: ``tarfile`` alone takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # public, but not in the stubs
            raise  # the two empty blocks at the end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged or missing: {error}") from error


def expanded(text: str) -> list[str]:
    """The URLs that ``text`` stands for. Raises :class:`ImageError` for a file that does not exist."""
    if text.startswith("pipe:"):
        return [text]
    urls = [str(url) for url in _library().shardlists.expand_urls(text)]
    return [file for url in urls for file in ([url] if urlparse(url).scheme else _files(url))]


def shard_names(urls: Sequence[str]) -> list[str]:
    """One name per shard, after its file: unique, and without ``__``, which separates it from an image's path."""
    taken: set[str] = set()
    stems = [plain(PurePosixPath(urlparse(url).path).name.partition(".tar")[0]) for url in urls]
    return [unique(re.sub(r"__+", "_", stem).strip("_") or "shard", taken) for stem in stems]


def _library() -> Any:
    return required("webdataset", "data", "data module 'webdataset'")


def _files(pattern: str) -> list[str]:
    files = [pattern] if Path(pattern).is_file() else sorted(glob(pattern))
    if not files:
        raise ImageError(f"data.urls must name tar files, but '{pattern}' does not exist")
    return files
