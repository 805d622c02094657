"""Whole photographs of a folder, one or a few at a time."""

from __future__ import annotations

import re
from pathlib import Path

from torch.utils.data import Dataset

from pscx.data.base import Photo, PhotoData, central, photo, too_small
from pscx.data.files import image_files
from pscx.data.names import short_enough
from pscx.images import image_sides, read_image

BUNDLED = Path(__file__).parent / "photos"


class FolderData(PhotoData):
    """Photographs of a folder as they are: a :class:`Photo` or a list of them a batch.

    Args:
        root: a folder (searched recursively, see :func:`pscx.runtime.walk.walk`) or one image; ``bundled`` for the five
            photographs of this package (a folder of that name is ``./bundled``).
        subset: take the first so many images in order of their paths, or all.
        crop: side of a square cut from the middle, at least 16 pixels, or the whole image.
        num_workers: processes that read images.
        batch_size: images that are evaluated at once, at least 1, and share network calls where they have one size
            and the codec is exact; memory grows with it, results do not depend on it. From 2 on, a batch is a list.

    Raises:
        ValueError: for an option outside its range.
        ImageError: in ``setup``, where ``root`` is missing or holds no image; for ``fit`` also where an image's header
            says that it is smaller than ``crop``. Other errors of a single image (not readable, or too small for
            another command) are in its :class:`Photo`.
    """

    references = ()

    def __init__(
        self,
        root: str = "bundled",
        subset: int | None = None,
        crop: int | None = None,
        num_workers: int = 0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(subset, crop, num_workers, batch_size)
        if not root:
            raise ValueError("data.root must not be empty: '.' is the current folder")
        self.root = BUNDLED if root == "bundled" else Path(root)

    def setup(self, stage: str) -> None:
        self.photos = photos = Photos(self.root, self.subset, self.crop)
        if stage == "fit" and self.crop is not None:  # a calibration needs all images
            check_sides(photos.files, self.crop)


class Photos(Dataset[Photo]):
    """Map-style dataset of the images under ``root``; see :class:`FolderData`."""

    def __init__(self, root: Path, subset: int | None, crop: int | None) -> None:
        self.files = image_files(root)[:subset]
        self.names = unique_names(root, self.files)
        self.crop = crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Photo:
        file = self.files[index]
        return photo(self.names[index], lambda: central(read_image(file), self.crop, file), str(file))


def unique_names(root: Path, files: list[Path]) -> list[str]:
    """Names for the results of ``files``: folders below ``root`` joined by ``__``, other characters as ``_``.

    Where two would be equal (``a.png`` and ``a.jpg``, or ``a`` and ``A`` on some file systems) the later ones in
    order get ``_2``, ``_3``, ...
    """
    taken: set[str] = set()
    stems = (plain("__".join([*file.relative_to(root).parts[:-1], file.stem])) for file in files)
    return [unique(stem, taken) for stem in stems]


def unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name_2``, ``name_3``, ... where ``taken`` has it in any case; puts it there.

    One that is too long for a file is shortened (:func:`pscx.data.names.short_enough`).
    """
    name = short_enough(name)
    result, count = name, 1
    while result.casefold() in taken:
        count += 1
        result = f"{name}_{count}"
    taken.add(result.casefold())
    return result


def plain(name: str) -> str:
    """A valid file name: characters other than letters, digits, ``.`` and ``-``, and a leading dot, become ``_``."""
    return re.sub(r"^\.|[^\w.\-]", "_", name)


def check_sides(files: list[Path], crop: int) -> None:
    """Raise :class:`ImageError` for the first of ``files`` that is smaller than ``crop`` on a side."""
    for file in files:
        width, height = image_sides(file) or (crop, crop)
        if min(width, height) < crop:
            raise too_small(file, width, height, crop)
