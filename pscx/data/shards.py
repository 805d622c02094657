"""Photographs from shards, files of many images that are read sequentially."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import get_worker_info

from pscx.data.base import Photo, Portioned, broken, central, photo
from pscx.errors import ImageError
from pscx.images import decode_image


class Shard(Protocol):
    """A part of a dataset: always the same images in the same order."""

    @property
    def name(self) -> str:
        """Unique in its dataset and fit for a file name."""

    def images(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield the name of each image, unique in the dataset and valid as a file name, and a function that reads it.

        Whatever is raised loses the rest of the shard; an ``ImageError`` of a reader only that image.
        """


class ShardedPhotos(Portioned):
    """Stream of the images of all shards.

    With at least as many shards as portions, each portion is every ``shares``-th shard, so a process reads no others.
    With fewer, or with a ``subset``, whose end only counting finds, each reads all shards and decodes every
    ``shares``-th image. The worker processes of a loader divide their process's portion in the same way.

    A shard that cannot be read to its end is one more item, with the shard's name and an error.
    """

    def __init__(
        self, shards: Sequence[Shard], subset: int | None, crop: int | None, shares: int = 1, share: int = 0
    ) -> None:
        self.shards, self.subset, self.crop, self.shares, self.share = shards, subset, crop, shares, share

    def portion(self, shares: int, share: int) -> ShardedPhotos:
        return ShardedPhotos(self.shards, self.subset, self.crop, shares, share)

    def shuffled(self, rng: np.random.Generator) -> ShardedPhotos:
        """The shards in another order, the images of each in theirs."""
        if self.subset is not None:
            return self  # it is the first so many images of the shards as they are
        shards = [self.shards[number] for number in rng.permutation(len(self.shards))]
        return ShardedPhotos(shards, None, self.crop, self.shares, self.share)

    def __iter__(self) -> Iterator[Photo]:
        worker = get_worker_info()
        workers, own = (1, 0) if worker is None else (worker.num_workers, worker.id)
        parts, part = self.shares * workers, self.share * workers + own
        if self.subset is None and len(self.shards) >= parts:
            return self._photos(range(part, len(self.shards), parts), 1, 0)
        return self._photos(range(len(self.shards)), parts, part)

    def _photos(self, numbers: range, parts: int, part: int) -> Iterator[Photo]:
        """Of the shards of these numbers those images that are the ``part``-th of ``parts`` within their shard."""
        left = self.subset
        for number in numbers:
            shard, index = self.shards[number], 0
            try:
                for index, (name, read) in enumerate(shard.images(), 1):
                    if (index + number) % parts == part:
                        yield self._photo(name, read)
                    left = None if left is None else left - 1
                    if left == 0:
                        return
            except Exception as error:  # libraries and object stores raise anything; the other shards are still there
                where = f"the shard '{shard.name}' cannot be read beyond its first {index} images"
                yield broken(shard.name, f"{where}: {_why(error)}")

    def _photo(self, name: str, read: Callable[[], bytes]) -> Photo:
        return photo(name, lambda: central(decode_image(read(), name), self.crop, name))


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ImageError) else f"{type(error).__name__}: {text}"
