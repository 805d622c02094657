"""Photographs of a Hugging Face dataset, on the hub or in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from pscx.data.base import Photo, PhotoData, central, photo
from pscx.data.folder import plain
from pscx.data.shards import ShardedPhotos
from pscx.errors import ImageError
from pscx.images import decode_image
from pscx.runtime.extras import required

SPLIT = "test"
WHAT = "data module 'huggingface'"
SAVED = ("state.json", "dataset_dict.json")  # files written by save_to_disk


class HuggingFaceData(PhotoData):
    """The image column of a dataset, read with the library Datasets.

    An image is named after the split and the number of its record; in a stream, after the shard and the number of
    the record in it. Needs ``pip install 'pscx[data]'``.

    Args:
        dataset: its name on the hub, a folder written by ``save_to_disk``, or another argument of ``load_dataset``.
        split: the split, such as ``test`` or ``train[:100]``; of a saved dataset one that it has, whole. One that was
            saved without splits takes none but its own and ``test``, and is read whole.
        config: the name of a configuration, if it has several.
        data_dir: the folder with the files, for a ``dataset`` such as ``imagefolder``.
        revision: a commit or tag on the hub; else the newest.
        column: the image column.
        streaming: read it as a stream, without a copy on disk.
        subset: take the first so many images, or all; of a stream, each process then reads from the beginning.
        crop: side of a square cut from the middle, at least 16 pixels, or the whole image.
        num_workers: processes that read images.
        batch_size: images that are evaluated at once, at least 1, as in :class:`FolderData`.

    Raises:
        ValueError: for an option outside its range.
        PscxError: where the library is missing.
        ImageError: in ``setup``, if the dataset cannot be loaded or lacks the image column. Errors of a single image
            are in its item.
    """

    references = ()

    def __init__(
        self,
        dataset: str,
        split: str = SPLIT,
        config: str | None = None,
        data_dir: str | None = None,
        revision: str | None = None,
        column: str = "image",
        streaming: bool = False,
        subset: int | None = None,
        crop: int | None = None,
        num_workers: int = 0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(subset, crop, num_workers, batch_size)
        required("datasets", "data", WHAT)
        self.saved = any((Path(dataset) / name).is_file() for name in SAVED)
        if self.saved and (config or data_dir or revision or streaming):
            raise ValueError(
                f"data.config, data_dir, revision and streaming must not be given with a saved dataset, '{dataset}'"
            )
        self.source = {"path": dataset, "name": config, "data_dir": data_dir, "revision": revision}
        self.split, self.column, self.streaming = split, column, streaming

    def prepare_data(self) -> None:
        """Download it, once per machine."""
        if not self.streaming:
            self._loaded()

    def setup(self, stage: str) -> None:
        records = self._loaded()
        name = plain(self.split)
        if not self.streaming:
            self.photos = Records(
                records if self.subset is None else records.take(min(self.subset, len(records))), name, self
            )
            return
        shards = [
            RecordShard(f"{name}-{number:05d}", records, number, self.column) for number in range(records.num_shards)
        ]
        self.photos = ShardedPhotos(shards, self.subset, self.crop)

    def _loaded(self) -> Any:
        """The dataset, whose images are file contents."""
        datasets = required("datasets", "data", WHAT)
        records = self._split(datasets)
        features = records.features or {}
        if not isinstance(features.get(self.column), datasets.Image):
            images = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
            had = f"has {', '.join(images)}" if images else "has none"
            raise ImageError(f"data.column must be an image column, got '{self.column}': {self._where} {had}")
        return records.cast_column(self.column, datasets.Image(decode=False))

    def _split(self, datasets: Any) -> Any:
        before = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            if not self.saved:
                return datasets.load_dataset(**self.source, split=self.split, streaming=self.streaming)
            records = datasets.load_from_disk(self.source["path"])
            if isinstance(records, datasets.DatasetDict):
                return records[self.split]
            if self.split not in (SPLIT, str(records.split)):
                raise ValueError(f"it was saved without splits, so data.split must be {SPLIT}")
            return records
        except Exception as error:  # errors of many types, from the hub, files and builders
            raise ImageError(f"{self._where} cannot be loaded: {' '.join(str(error).split())}") from error
        finally:
            if before:
                datasets.enable_progress_bars()

    @property
    def _where(self) -> str:
        return f"the split '{self.split}' of the dataset '{self.source['path']}'"


class Records(Dataset[Photo]):
    """Map-style dataset of the images of ``records``, which lie on this machine; a process reads those it asks for."""

    def __init__(self, records: Any, name: str, options: HuggingFaceData) -> None:
        self.records, self.name, self.column, self.crop = records, name, options.column, options.crop

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Photo:
        name = f"{self.name}-{index:06d}"
        return photo(
            name, lambda: central(decode_image(content(self.records[index][self.column], name), name), self.crop, name)
        )


@dataclass(frozen=True)
class RecordShard:
    """The images of one shard of a streamed dataset; a :class:`pscx.data.shards.Shard`."""

    name: str
    records: Any
    number: int
    column: str

    def images(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Raises the errors of Datasets if the shard cannot be read."""
        records = self.records.shard(num_shards=self.records.num_shards, index=self.number)
        for index, record in enumerate(records):
            name = f"{self.name}-{index:06d}"
            yield name, partial(content, record[self.column], name)


def content(image: dict[str, Any] | None, name: str) -> bytes:
    """The content of the file of the image ``name``. Raises :class:`ImageError` if it is missing or unreadable."""
    if image is None:
        raise ImageError(f"the record of '{name}' has no image in its image column")
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    try:
        with required("fsspec", "data", WHAT).open(image["path"], "rb") as file:  # a path, or a URL of the hub
            return bytes(file.read())
    except OSError as error:
        raise ImageError(f"cannot read '{image['path']}': {error.strerror or error}") from error
