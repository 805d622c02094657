"""Random crops of photographs that are read sequentially, for training on data larger than a disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from itertools import count, islice

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from pscx.data.base import Photo, PhotoData, Portioned
from pscx.data.crops import check_given, check_least, check_scales, random_crop, validation_crops
from pscx.errors import ImageError, PscxError

PATIENCE = 10  # passes without a readable photograph before a part gives up


class StreamedCropData(LightningDataModule):
    """Square crops as :class:`pscx.data.CropData` makes them, of the photographs of any other data module.

    All photographs are read once per pass, each pass in another order of the shards, or of the photographs if they have
    numbers. Each process, and each of its workers, reads its own part of a pass. The stream continues
    from one epoch to the next, so an epoch may be much shorter than a pass. The crops are a function of the seed, of
    the step at which the training was started or resumed, and of the numbers of processes and workers. A photograph or
    a shard that cannot be read is left out with a warning.

    Args:
        photos: where the photographs come from, such as ``{name: webdataset, urls: photos-{0000..0099}.tar}``; with a
            ``subset`` of shards, always in their order.
        val_root: folder or folders to validate on.
        crop: side of a crop in pixels, after scaling.
        scales: smallest and largest factor, in (0, 1], by which a photograph is shrunk before it is cropped.
        batch_size: crops per batch, in each process.
        crops_per_epoch: crops of all processes together, rounded up to whole batches, after which an epoch (and with it
            a validation and a checkpoint) ends.
        crops_per_photo: crops taken of a photograph each time it is read.
        shuffle_buffer: size of each worker's shuffle buffer, in crops.
        val_crops: crops in the validation set.
        seed: seed of the crops, not of the noise; at least 0.
        num_workers: processes that prepare crops.

    Raises:
        ValueError: an option is out of range; ``photos.num_workers`` or ``photos.batch_size``, for which those of this
            module stand, is given.
        PscxError: in ``setup``, where ``photos`` is neither a dataset with a length nor a stream of portions.
        ImageError: while training, where a process or worker finds no photograph that can be read in ten turns.
    """

    references = ()

    def __init__(
        self,
        photos: PhotoData,
        val_root: str | list[str],
        crop: int = 64,
        scales: list[float] = [0.35, 1.0],  # noqa: B006 (jsonargparse copies defaults)
        batch_size: int = 16,
        crops_per_epoch: int = 8000,
        crops_per_photo: int = 4,
        shuffle_buffer: int = 256,
        val_crops: int = 96,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_least(
            crop=(crop, 1),
            batch_size=(batch_size, 1),
            crops_per_epoch=(crops_per_epoch, 1),
            crops_per_photo=(crops_per_photo, 1),
            shuffle_buffer=(shuffle_buffer, 1),
            val_crops=(val_crops, 1),
            seed=(seed, 0),
            num_workers=(num_workers, 0),
        )
        check_given(val_root=val_root)
        check_scales(scales)
        if photos.num_workers != 0 or (photos.batch_size or 1) != 1:
            raise ValueError(
                "data.photos must not set num_workers or batch_size (set those of data), got "
                f"{photos.num_workers} and {photos.batch_size or 1}"
            )
        self.source, self.val_roots = photos, [val_root] if isinstance(val_root, str) else val_root
        self.crop, self.scales, self.batch_size, self.seed = crop, scales, batch_size, seed
        self.crops_per_epoch, self.crops_per_photo = crops_per_epoch, crops_per_photo
        self.shuffle_buffer, self.val_crops, self.num_workers = shuffle_buffer, val_crops, num_workers
        self._loader: DataLoader[Tensor] | None = None

    def prepare_data(self) -> None:
        self.source.prepare_data()

    def setup(self, stage: str) -> None:
        self.source.setup(stage)
        if not isinstance(self.source.photos, (Portioned, Sized)):
            kind = type(self.source.photos).__name__
            raise PscxError(f"data.photos must have a length or be a Portioned stream, but its photos are a {kind}")
        self.val_set = validation_crops(self.val_roots, self.val_crops, self.crop, self.seed, self.val_crops)
        self._loader = None

    def train_dataloader(self) -> DataLoader[Tensor]:
        """The same loader in every epoch, so that its stream continues, in this process or in persistent workers."""
        if self._loader is None:
            start, shares, share = 0, 1, 0
            if self.trainer is not None:
                start, shares, share = self.trainer.global_step, self.trainer.world_size, self.trainer.global_rank
            stream, workers = CropStream(self, start, shares, share), self.num_workers
            self._loader = DataLoader(stream, self.batch_size, num_workers=workers, persistent_workers=workers > 0)
        return self._loader

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.val_set, 2 * self.batch_size, num_workers=self.num_workers)


class CropStream(IterableDataset[Tensor]):
    """The stream of process ``share`` of ``shares``: crops ``(3, crop, crop)``, float32 in [-1, 1].

    Each iterator yields the crops of one epoch and continues the stream. Another ``start`` gives another order.
    """

    def __init__(self, data: StreamedCropData, start: int, shares: int, share: int) -> None:
        self.photos, self.scales, self.side = data.source.photos, data.scales, data.crop
        self.each, self.buffer, self.batch_size = data.crops_per_photo, data.shuffle_buffer, data.batch_size
        self.key, self.shares, self.share = (data.seed, start), shares, share
        self.batches = -(-data.crops_per_epoch // (data.batch_size * shares))
        self._running: Iterator[Tensor] | None = None

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        workers, own = (1, 0) if worker is None else (worker.num_workers, worker.id)
        if self._running is None:
            parts, part = self.shares * workers, self.share * workers + own
            rng = np.random.default_rng([*self.key, 1, part])
            self._running = mixed(self._crops(parts, part, rng), self.buffer, rng)
        batches = len(range(own, self.batches, workers))
        return islice(self._running, batches * self.batch_size)

    def _crops(self, parts: int, part: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Endless crops of one part of the photographs of every pass."""
        empty = 0
        for turn in count():
            empty += 1
            order = np.random.default_rng([*self.key, 0, turn])  # the same for all parts
            for photo in self._turn(order, parts, part):
                if photo["error"]:
                    warnings.warn(f"left out of the training: {photo['error']}", stacklevel=2)
                    continue
                empty = 0
                pixels = photo["pixels"].permute(1, 2, 0).numpy()
                for _ in range(self.each):
                    yield random_crop(pixels, rng, self.side, self.scales)
            if empty == PATIENCE:
                raise ImageError(
                    "data.photos must have at least one readable photograph for each of "
                    f"{parts} processes and workers, but number {part + 1} found none"
                )

    def _turn(self, order: np.random.Generator, parts: int, part: int) -> Iterator[Photo]:
        photos: Dataset[Photo] = self.photos
        if isinstance(photos, Portioned):  # the dataset knows its worker itself
            yield from photos.shuffled(order).portion(self.shares, self.share)
        elif isinstance(photos, Sized):
            for index in order.permutation(len(photos))[part::parts]:
                yield photos[int(index)]


def mixed(crops: Iterator[Tensor], buffer: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """The crops in random order, by a shuffle buffer of ``buffer`` crops; none is repeated.

    At first every other crop is put by, so the training need not wait until all places are taken.
    """
    waiting: list[Tensor] = []
    for number, crop in enumerate(crops):
        waiting.append(crop)
        if number % 2 or len(waiting) >= buffer:
            index = rng.integers(len(waiting))
            waiting[index], waiting[-1] = waiting[-1], waiting[index]
            yield waiting.pop()
