"""Random crops of a folder of photographs, for training a prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pscx.data.files import image_files
from pscx.errors import ImageError, PscxError
from pscx.images import read_image


class CropData(LightningDataModule):
    """Square crops at mixed scales, flipped and turned, from folders of images (searched recursively).

    A crop is a function of (seed, epoch, index) only, so a resumed run sees the same crops. A file that cannot be
    read is left out with a warning.

    Args:
        root: folder or folders to train on.
        val_root: folder or folders to validate on.
        crop: side of a crop in pixels, after scaling.
        scales: smallest and largest factor, in (0, 1], by which an image is shrunk before it is cropped; one pair
            for every root, or one pair each. Shrinking removes traces of earlier JPEG coding.
        batch_size: crops per batch.
        crops_per_epoch: crops after which an epoch (and with it a validation and a checkpoint) ends.
        val_crops: crops in the validation set.
        seed: seed of the crops, not of the noise; at least 0.
        num_workers: processes that prepare crops.
        cache: number of decoded images kept in memory.

    Raises:
        ValueError: an option is out of range.
        PscxError: in training over several epochs where the trainer's ``reload_dataloaders_every_n_epochs`` is not 1:
            epochs would repeat the crops of earlier ones.
        ImageError: while training, if no file can be read.
    """

    references = ()

    def __init__(
        self,
        root: str | list[str],
        val_root: str | list[str],
        crop: int = 64,
        scales: list[float] | list[list[float]] = [0.35, 1.0],  # noqa: B006 (jsonargparse copies defaults)
        batch_size: int = 16,
        crops_per_epoch: int = 8000,
        val_crops: int = 96,
        seed: int = 0,
        num_workers: int = 0,
        cache: int = 4096,
    ) -> None:
        super().__init__()
        check_least(
            crop=(crop, 1),
            batch_size=(batch_size, 1),
            crops_per_epoch=(crops_per_epoch, 1),
            val_crops=(val_crops, 1),
            seed=(seed, 0),
            num_workers=(num_workers, 0),
            cache=(cache, 0),
        )
        check_given(root=root, val_root=val_root, scales=scales)
        self.roots = [root] if isinstance(root, str) else root
        self.val_roots = [val_root] if isinstance(val_root, str) else val_root
        pairs = scales if isinstance(scales[0], list) else [scales]
        self.scales = pairs * len(self.roots) if len(pairs) == 1 else pairs
        if len(self.scales) != len(self.roots):
            raise ValueError(f"data.scales must hold 1 pair or {len(self.roots)} (1 per root), got {len(self.scales)}")
        for pair in self.scales:
            check_scales(pair)
        self.crop, self.batch_size, self.seed = crop, batch_size, seed
        self.crops_per_epoch, self.val_crops = crops_per_epoch, val_crops
        self.num_workers, self.cache = num_workers, cache

    def setup(self, stage: str) -> None:
        pools = [(image_files(root), pair) for root, pair in zip(self.roots, self.scales, strict=True)]
        self.train_set = Crops(pools, self.crops_per_epoch, self.crop, self.seed, self.cache)
        self.val_set = validation_crops(self.val_roots, self.val_crops, self.crop, self.seed, self.cache)

    def train_dataloader(self) -> DataLoader[Tensor]:
        if self.trainer is not None:
            every = self.trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]  # set by its connector
            if every != 1 and self.trainer.max_epochs != 1:
                raise PscxError(
                    f"trainer.reload_dataloaders_every_n_epochs must be 1 for data crops, got {every}: epochs would "
                    "repeat their crops"
                )
            self.train_set.epoch = self.trainer.current_epoch
        return DataLoader(self.train_set, self.batch_size, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.val_set, 2 * self.batch_size, num_workers=self.num_workers)


class Crops(Dataset[Tensor]):
    """Map-style dataset of crops ``(3, crop, crop)``, float32 in [-1, 1]."""

    def __init__(
        self, pools: list[tuple[list[Path], list[float]]], length: int, crop: int, seed: int, cache: int
    ) -> None:
        self.choices = [(file, pair) for files, pair in pools for file in files]
        self.length, self.crop, self.seed, self.epoch = length, crop, seed, 0
        self.cache = cache
        self.left_out: set[Path] = set()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        while True:
            file, scales = self.choices[rng.integers(len(self.choices))]
            if file in self.left_out:
                continue
            try:
                pixels = self.read(file)
            except ImageError as error:
                self._leave_out(file, error)
            else:
                return random_crop(pixels, rng, self.crop, scales)

    def _leave_out(self, file: Path, error: ImageError) -> None:
        self.left_out.add(file)
        if all(other in self.left_out for other, _ in self.choices):
            raise error
        warnings.warn(f"left out of the training: {error}", stacklevel=3)

    @cached_property
    def read(self) -> Callable[[Path], NDArray[np.uint8]]:
        """:func:`read_image` with a cache, one per process."""
        return lru_cache(self.cache)(read_image)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "read"}  # it cannot be pickled


def validation_crops(roots: Sequence[str], length: int, crop: int, seed: int, cache: int) -> Crops:
    """Crops of folders, shrunk by at most half; always the same."""
    return Crops([(image_files(root, "data.val_root"), [0.5, 1.0]) for root in roots], length, crop, seed, cache)


def random_crop(pixels: NDArray[np.uint8], rng: np.random.Generator, side: int, scales: Sequence[float]) -> Tensor:
    """A random crop of ``(height, width, 3)``, shrunk, flipped and turned: ``(3, side, side)``, float32 in [-1, 1].

    The logarithm of the factor is uniform between those of the two ``scales``, as far as the image is large enough.
    If the image is too small, its largest square is enlarged.
    """
    height, width = pixels.shape[:2]
    low, high = max(scales[0], side / min(height, width)), scales[1]
    scale = max(low, np.exp(rng.uniform(np.log(min(low, high)), np.log(high))))
    taken = min(round(side / scale), height, width)
    top, left = rng.integers(height - taken + 1), rng.integers(width - taken + 1)
    piece = pixels[top : top + taken, left : left + taken]
    if taken != side:
        piece = np.asarray(Image.fromarray(piece).resize((side, side), Image.Resampling.LANCZOS))
    if rng.integers(2):
        piece = piece[:, ::-1]
    piece = np.rot90(piece, int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])))
    return torch.from_numpy(piece.copy()).permute(2, 0, 1).float() / 127.5 - 1


def check_least(**options: tuple[int, int]) -> None:
    """Raise ``ValueError`` if an option of a data module, given as its value and its minimum, is below the minimum."""
    for name, (value, least) in options.items():
        if value < least:
            raise ValueError(f"data.{name} must be at least {least}, got {value}")


def check_given(**options: Sequence[Any]) -> None:
    """Raise ``ValueError`` if an option of a data module is empty."""
    for name, given in options.items():
        if not given:
            raise ValueError(f"data.{name} must not be empty")


def check_scales(pair: Sequence[float]) -> None:
    """Raise ``ValueError`` unless these are two increasing factors in (0, 1]."""
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= 1:
        raise ValueError(f"data.scales must be two increasing factors in (0, 1], got {list(pair)}")
