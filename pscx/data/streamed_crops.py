"""Random crops of photographs that are read once from beginning to end: for training on more than a disk holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from itertools import count, islice

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from pscx.data.base import Photo, PhotoData, Portioned
from pscx.data.crops import Crops, check_least, check_scales, random_crop
from pscx.data.files import image_files
from pscx.errors import ImageError, PscxError


class StreamedCropData(LightningDataModule):
    """Square crops as :class:`pscx.data.CropData` makes them, of the photographs of any other data module.

    Every epoch reads the shards (or, where photographs have numbers, those) in another order from the first on, and
    ends after ``crops_per_epoch`` crops; each process reads its own part, and so does each of its workers. Which crops
    they are is a function of the seed, the epoch and the numbers of processes and workers, so a resumed run sees what
    an undisturbed one would. A photograph or a shard that cannot be read is left out with a warning.

    Args:
        photos: where the photographs come from, such as ``{name: webdataset, urls: photos-{0000..0099}.tar}``.
        val_root: folder or folders to validate on.
        crop: side of a crop in pixels, after scaling.
        scales: smallest and largest factor, in (0, 1], by which a photograph is shrunk before it is cropped.
        batch_size: crops a batch, in each process.
        crops_per_epoch: crops of all processes together, rounded up to whole batches, after which an epoch (and with it
            a validation and a checkpoint) ends.
        crops_per_photo: crops that are taken of a photograph whenever it is read.
        shuffle: crops that are held at most, by each worker, of which the next is drawn.
        val_crops: crops in the validation set.
        seed: of the crops, not of the noise.
        num_workers: processes that prepare crops.

    Raises:
        ValueError: an option is out of range; ``photos.num_workers`` or ``photos.batch_size``, for which those of this
            module stand, is given.
        ImageError: while training, where a process or worker finds no photograph that can be read.
        PscxError: when training begins, where ``trainer.reload_dataloaders_every_n_epochs`` is not 1.
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
        shuffle: int = 256,
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
            shuffle=(shuffle, 1),
            val_crops=(val_crops, 1),
            num_workers=(num_workers, 0),
        )
        check_scales(scales)
        if photos.num_workers != 0 or photos.batch_size != 1:
            raise ValueError("data.photos must not have num_workers or batch_size: those of data hold")
        self.source, self.val_roots = photos, [val_root] if isinstance(val_root, str) else val_root
        self.crop, self.scales, self.batch_size, self.seed = crop, scales, batch_size, seed
        self.crops_per_epoch, self.crops_per_photo, self.shuffle = crops_per_epoch, crops_per_photo, shuffle
        self.val_crops, self.num_workers = val_crops, num_workers

    def prepare_data(self) -> None:
        self.source.prepare_data()

    def setup(self, stage: str) -> None:
        self.source.setup(stage)
        whole = [(image_files(root), [0.5, 1.0]) for root in self.val_roots]
        self.val_set = Crops(whole, self.val_crops, self.crop, self.seed, self.val_crops)

    def train_dataloader(self) -> DataLoader[Tensor]:
        epoch, shares, share = 0, 1, 0
        if self.trainer is not None:
            reload = self.trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]  # it is set elsewhere
            if reload != 1:
                raise PscxError(
                    "trainer.reload_dataloaders_every_n_epochs must be 1 with data 'streamed_crops', or every epoch "
                    f"sees the same crops; got {reload}"
                )
            epoch, shares, share = self.trainer.current_epoch, self.trainer.world_size, self.trainer.global_rank
        return DataLoader(CropStream(self, epoch, shares, share), self.batch_size, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.val_set, 2 * self.batch_size, num_workers=self.num_workers)


class CropStream(IterableDataset[Tensor]):
    """What process ``share`` of ``shares`` sees in an epoch: crops ``(3, crop, crop)``, float32 in [-1, 1]."""

    def __init__(self, data: StreamedCropData, epoch: int, shares: int, share: int) -> None:
        self.photos, self.scales, self.side = data.source.photos, data.scales, data.crop
        self.each, self.held, self.batch_size = data.crops_per_photo, data.shuffle, data.batch_size
        self.key, self.shares, self.share = (data.seed, epoch), shares, share
        self.batches = -(-data.crops_per_epoch // (data.batch_size * shares))

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        workers, own = (1, 0) if worker is None else (worker.num_workers, worker.id)
        parts, part = self.shares * workers, self.share * workers + own
        rng = np.random.default_rng([*self.key, 1, part])
        batches = len(range(own, self.batches, workers))
        return islice(mixed(self._crops(parts, part, rng), self.held, rng), batches * self.batch_size)

    def _crops(self, parts: int, part: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Without end: all photographs of a part again and again, each time in another order."""
        for turn in count():
            seen = False
            order = np.random.default_rng([*self.key, 0, turn])  # the same in all parts
            for photo in portion(self.photos, order, self.shares, self.share, parts, part):
                if photo["error"]:
                    warnings.warn(f"left out of the training: {photo['error']}", stacklevel=2)
                    continue
                seen = True
                pixels = photo["pixels"].permute(1, 2, 0).numpy()
                for _ in range(self.each):
                    yield random_crop(pixels, rng, self.side, self.scales)
            if not seen:
                raise ImageError(
                    f"data.photos must have at least one photograph that can be read for each of {parts} processes and "
                    f"workers, but number {part + 1} has none"
                )


def portion(
    photos: Dataset[Photo], order: np.random.Generator, shares: int, share: int, parts: int, part: int
) -> Iterator[Photo]:
    """Once each, the photographs of a ``part`` of ``parts``, which is one worker's of process ``share``, in an order.

    A stream knows for itself which worker asks.
    """
    if isinstance(photos, Portioned):
        yield from photos.shuffled(order).portion(shares, share)
        return
    assert isinstance(photos, Sized)
    for index in order.permutation(len(photos))[part::parts]:
        yield photos[int(index)]


def mixed(crops: Iterator[Tensor], held: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Each crop once, in an order that is drawn: the next is one of the up to ``held`` that wait.

    At first every other crop is put by, so the training need not wait until all places are taken.
    """
    waiting: list[Tensor] = []
    for number, crop in enumerate(crops):
        waiting.append(crop)
        if number % 2 or len(waiting) >= held:
            index = rng.integers(len(waiting))
            waiting[index], waiting[-1] = waiting[-1], waiting[index]
            yield waiting.pop()
