"""Base of data modules of whole photographs: items, and the share of each rank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from pscx.errors import ImageError, PscxError
from pscx.images import MIN_SIDE
from pscx.runtime.filling import MOST, room_on


class Photo(TypedDict):
    """One item of a :class:`PhotoData`."""

    name: str
    """Unique in its dataset and fit for a file name, without suffix; ``sub/a.png`` of a folder is ``sub__a``."""
    pixels: Tensor
    """``(3, height, width)``, uint8; empty where the image cannot be read."""
    source: str
    """Its file, or its name where it has none of its own."""
    error: str
    """Why it cannot be read, in one sentence; else empty."""


class Portioned(IterableDataset[Photo]):
    """Photographs that are read sequentially; each rank reads its own portion."""

    @abstractmethod
    def portion(self, shares: int, share: int) -> Portioned:
        """One of ``shares`` portions, numbered from 0, that hold every photograph once."""

    @abstractmethod
    def shuffled(self, rng: np.random.Generator) -> Portioned:
        """The same photographs in an order that is drawn, as far as they need not be read for it."""


class PhotoData(LightningDataModule):
    """Whole photographs: a :class:`Photo` or a list of them per batch.

    ``setup`` sets ``photos``, a dataset with a length or a stream.

    Args:
        subset: take the first so many images, or all.
        crop: side of a square cut from the middle, at least 16 pixels, or the whole image.
        num_workers: processes that read images.
        batch_size: images that are evaluated at once, at least 1; from 2 on, a batch is a list. None: one on a CPU, on
            an accelerator as many as its free memory holds, at most 32.

    Raises:
        ValueError: for an option outside its range.
    """

    photos: Dataset[Photo]

    def __init__(self, subset: int | None, crop: int | None, num_workers: int, batch_size: int | None = None) -> None:
        super().__init__()
        if subset is not None and subset < 1:
            raise ValueError(f"data.subset must be at least 1, or none for all images, got {subset}")
        if crop is not None and crop < MIN_SIDE:
            raise ValueError(f"data.crop must be at least {MIN_SIDE}, or none for whole images, got {crop}")
        if num_workers < 0:
            raise ValueError(f"data.num_workers must be at least 0, got {num_workers}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {batch_size}")
        self.subset, self.crop, self.num_workers, self.batch_size = subset, crop, num_workers, batch_size

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Make ``photos``."""

    def train_dataloader(self) -> DataLoader[Photo]:
        """For calibration: every image once, in order and one by one."""
        if (self.batch_size or 1) > 1:
            raise PscxError(f"data.batch_size must be 1 to learn from whole images, got {self.batch_size}")
        photos = self.photos
        if isinstance(photos, Portioned):  # Lightning only distributes datasets with a length
            photos = photos.portion(*self._share())
        return DataLoader(photos, batch_size=None, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[Photo]:
        shares, share = self._share()
        photos, sampler = self.photos, None
        if isinstance(photos, Portioned):
            photos = photos.portion(shares, share)
        elif self.trainer is not None and self.trainer.world_size > 1 and isinstance(photos, Sized):
            # Lightning would add its own sampler, even if all ranks take every image
            sampler = Share(len(photos), shares, share)
        several: dict[str, Any] = {"batch_size": self.at_once, "collate_fn": list}
        size = several if several["batch_size"] > 1 else {"batch_size": None}
        return DataLoader(photos, num_workers=self.num_workers, sampler=sampler, **size)

    @property
    def at_once(self) -> int:
        """The batch size, or what an accelerator is given: of these images, it works on as many as it has room for."""
        if self.batch_size is not None or self.trainer is None:
            return self.batch_size or 1
        return 1 if room_on(self.trainer.strategy.root_device) is None else MOST

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave photographs on the CPU: the codec moves its tensors itself."""
        return batch

    def predict_dataloader(self) -> DataLoader[Photo]:
        return self.test_dataloader()

    def _share(self) -> tuple[int, int]:
        """The number of shares of the images, and the share of this process."""
        if self.trainer is None or self.trainer.world_size == 1:
            return 1, 0
        module = self.trainer.lightning_module
        alone = (self.trainer.world_size, self.trainer.global_rank)
        return module.image_share if isinstance(module, SharesImages) else alone


@runtime_checkable
class SharesImages(Protocol):
    """A module that sets the number of shares of the images, and the share of this process."""

    @property
    def image_share(self) -> tuple[int, int]: ...


class Share(DistributedSampler[int]):
    """Every ``shares``-th image from number ``share`` on: each image exactly once.

    A ``DistributedSampler``, because Lightning would otherwise add its own, with padding.
    """

    def __init__(self, images: int, shares: int, share: int) -> None:
        self.indices = range(share, images, shares)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning; the order of the images does not depend on the epoch."""


def photo(name: str, read: Callable[[], NDArray[np.uint8]], source: str = "") -> Photo:
    """The item of that name with the pixels ``(height, width, 3)``, uint8, that ``read`` returns.

    An :class:`ImageError` that it raises becomes the item's ``error``. ``source`` is the image's file, if it has one.
    """
    try:
        pixels = torch.from_numpy(read()).permute(2, 0, 1)
    except ImageError as error:
        return broken(name, str(error))
    return {"name": name, "pixels": pixels.contiguous(), "source": source or name, "error": ""}


def broken(name: str, error: str) -> Photo:
    """The item of that name for an image without pixels."""
    return {"name": name, "pixels": torch.empty(3, 0, 0, dtype=torch.uint8), "source": name, "error": error}


def central(pixels: NDArray[np.uint8], side: int | None, file: Path | str) -> NDArray[np.uint8]:
    """The middle square, or the whole image. Raises :class:`ImageError`, naming ``file``, if it does not fit."""
    if side is None:
        return pixels
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise too_small(file, width, height, side)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def too_small(file: Path | str, width: int, height: int, crop: int) -> ImageError:
    """The error for an image that is smaller than the crop."""
    return ImageError(f"data.crop must fit into every image, but {crop} exceeds '{file}' of {width}x{height}")
