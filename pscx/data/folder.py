"""Whole photographs, one or a few at a time, for evaluating a codec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from pscx.data.files import image_files
from pscx.errors import ImageError
from pscx.images import MIN_SIDE, image_sides, read_image

BUNDLED = Path(__file__).parent / "photos"


class Photo(TypedDict):
    """One item of :class:`FolderData`."""

    name: str
    """Unique in its folder and fit for a file name, without suffix; ``sub/a.png`` is ``sub__a``."""
    pixels: Tensor
    """``(3, height, width)``, uint8; empty where the file cannot be read."""
    error: str
    """Why it cannot be read, in one sentence; else empty."""


class FolderData(LightningDataModule):
    """Photographs of a folder as they are, for all but training a prior: a :class:`Photo` or a list of them a batch.

    Args:
        root: a folder (searched recursively) or one image; ``bundled`` for the five photographs of this package (a
            folder of that name is ``./bundled``).
        subset: take the first so many images in order of their paths, or all.
        crop: side of a square cut from the middle, at least 16 pixels, or the whole image.
        num_workers: processes that read images.
        batch_size: images that are evaluated at once, at least 1, and share network calls where they have one size
            and the codec is exact; memory grows with it, results do not depend on it. From 2 on, a batch is a list.

    Raises:
        ValueError: for an option outside its range.
        ImageError: in ``setup``, where ``root`` is missing or holds no image; for ``fit`` also where an image's header
            says that it is smaller than ``crop``. What else is wrong with a single image (not readable, or too small
            for another command) is told in its :class:`Photo`.
    """

    def __init__(
        self,
        root: str = "bundled",
        subset: int | None = None,
        crop: int | None = None,
        num_workers: int = 0,
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        if subset is not None and subset < 1:
            raise ValueError(f"data.subset must be at least 1, or none for all images, got {subset}")
        if crop is not None and crop < MIN_SIDE:
            raise ValueError(f"data.crop must be at least {MIN_SIDE}, or none for whole images, got {crop}")
        if num_workers < 0:
            raise ValueError(f"data.num_workers must be at least 0, got {num_workers}")
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {batch_size}")
        self.root = BUNDLED if root == "bundled" else Path(root)
        self.subset, self.crop, self.num_workers, self.batch_size = subset, crop, num_workers, batch_size

    def setup(self, stage: str) -> None:
        self.photos = Photos(self.root, self.subset, self.crop)
        if stage == "fit" and self.crop is not None:  # a calibration is of all images or none
            check_sides(self.photos.files, self.crop)

    def train_dataloader(self) -> DataLoader[Photo]:
        """For calibration: every image once, in order."""
        return DataLoader(self.photos, batch_size=None, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[Photo]:
        several: dict[str, Any] = {"batch_size": self.batch_size, "collate_fn": list}
        size = several if self.batch_size > 1 else {"batch_size": None}
        return DataLoader(self.photos, num_workers=self.num_workers, sampler=self._share(), **size)

    def predict_dataloader(self) -> DataLoader[Photo]:
        return self.test_dataloader()

    def _share(self) -> Share | None:
        """The images of this process, where there are several."""
        if self.trainer is None or self.trainer.world_size == 1:
            return None
        module = self.trainer.lightning_module
        alone = (self.trainer.world_size, self.trainer.global_rank)
        return Share(len(self.photos), *(module.image_share if isinstance(module, SharesImages) else alone))


@runtime_checkable
class SharesImages(Protocol):
    """A module that says into how many shares the images are cut, and which of them is this process's."""

    @property
    def image_share(self) -> tuple[int, int]: ...


class Share(DistributedSampler[int]):
    """Every ``shares``-th image from number ``share`` on: none twice and none left out, however many there are.

    A ``DistributedSampler`` for Lightning alone, which would otherwise put one of its own around it, with padding.
    """

    def __init__(self, images: int, shares: int, share: int) -> None:
        self.indices = range(share, images, shares)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Lightning tells the epoch; the order of the images is always the same."""


class Photos(Dataset[Photo]):
    """Map-style dataset of the images under ``root``; see :class:`FolderData`."""

    def __init__(self, root: Path, subset: int | None, crop: int | None) -> None:
        self.files = image_files(root)[:subset]
        self.names = unique_names(root, self.files)
        self.crop = crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Photo:
        name = self.names[index]
        try:
            pixels = torch.from_numpy(self._pixels(self.files[index])).permute(2, 0, 1)
        except ImageError as error:
            return {"name": name, "pixels": torch.empty(3, 0, 0, dtype=torch.uint8), "error": str(error)}
        return {"name": name, "pixels": pixels.contiguous(), "error": ""}

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        pixels = read_image(file)
        return pixels if self.crop is None else _central(pixels, self.crop, file)


def unique_names(root: Path, files: list[Path]) -> list[str]:
    """Names for what is made of ``files``: folders below ``root`` joined by ``__``, odd characters as ``_``.

    Where two would be equal (``a.png`` and ``a.jpg``, or ``a`` and ``A`` on some file systems) the later ones in
    order get ``_2``, ``_3``, ...
    """
    names: dict[str, str] = {}
    for file in files:
        folders = file.relative_to(root).parts[:-1]
        stem = name = re.sub(r"^\.|[^\w.\-]", "_", "__".join([*folders, file.stem]))
        count = 1
        while name.casefold() in names:
            count += 1
            name = f"{stem}_{count}"
        names[name.casefold()] = name
    return list(names.values())


def check_sides(files: list[Path], crop: int) -> None:
    """Raise :class:`ImageError` with the first of ``files`` that a square of side ``crop`` does not fit into."""
    for file in files:
        width, height = image_sides(file) or (crop, crop)
        if min(width, height) < crop:
            raise _too_small(file, width, height, crop)


def _too_small(file: Path, width: int, height: int, crop: int) -> ImageError:
    return ImageError(f"data.crop must fit into every image, but {crop} exceeds '{file}' of {width}x{height}")


def _central(pixels: NDArray[np.uint8], side: int, file: Path) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise _too_small(file, width, height, side)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
