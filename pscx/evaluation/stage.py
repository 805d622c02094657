"""State of one rank of an evaluation: records so far, and images that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from pscx.api import Pixels, memory_of
from pscx.data.base import Photo
from pscx.errors import PscxError
from pscx.evaluation.coding import Coding, record_of
from pscx.evaluation.kept import Kept, Result, pixels_digest
from pscx.evaluation.log import Log
from pscx.evaluation.measuring import Measuring
from pscx.evaluation.progress import Shown
from pscx.evaluation.ranks import gathered
from pscx.evaluation.tables import Record, completed
from pscx.execution.batching import Task, together
from pscx.execution.sharding import Spread
from pscx.runtime.filling import room_on
from pscx.runtime.progress import Bar

T = TypeVar("T")


@dataclass
class Stage:
    """One run over the images. ``measuring`` is none where nothing is measured, ``log`` where nothing is logged."""

    coding: Coding
    spread: Spread
    world: int
    root: Path
    shown: Shown
    measuring: Measuring | None = None
    log: Log | None = None
    records: list[Record] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def gathered(self, own: Sequence[T]) -> list[T]:
        """The lists of all ranks, concatenated."""
        return gathered(own, self.spread, self.world)

    def all_failures(self) -> dict[str, str]:
        """The reason for each image that was left out, over all ranks."""
        return dict(self.gathered([*self.failures.items()]))

    def all_done(self, photos: list[Photo]) -> list[Pixels | None]:
        """The first restoration of each photograph, in shared network calls; none for one that is left out.

        An error that is not caused by one image stops the run after the others. Processes that share an image's
        samples take one image at a time, so that they exchange those of the same one; the first of them reads it.
        """
        photos = [self.spread.first(photo) for photo in photos]
        size = len(photos) if self.spread.size == 1 else 1
        codec = self.coding.codec
        room = room_on(codec.signal_codec.device)
        tasks = [Task(partial(self._done, photo), codec.shares_calls, self._needs(photo, room)) for photo in photos]
        pictures: list[Pixels | None] = []
        errors: list[Exception] = []
        for photo, result in zip(photos, together(tasks, size, room), strict=True):
            if isinstance(result, PscxError):
                self.failures[photo["name"]] = f"'{photo['name']}': {result}"
            elif isinstance(result, Exception):
                errors.append(result)
            pictures.append(None if isinstance(result, Exception) else result)
        if errors:
            raise errors[0]
        return pictures

    def _needs(self, photo: Photo, room: int | None) -> int:
        """Bytes that a photograph takes, where room is bounded."""
        if room is None or photo["error"]:
            return 0
        height, width = photo["pixels"].shape[1:]
        return memory_of(self.coding.codec.signal_codec, height, width)

    def _done(self, photo: Photo) -> Pixels | None:
        """The first restoration of a photograph, from an earlier run if possible; adds its record."""
        name = photo["name"]
        if photo["error"]:
            self.failures[name] = photo["error"]
            return None
        bar = self.shown.begin(name)
        original: Pixels = np.ascontiguousarray(photo["pixels"].movedim(0, -1).cpu().numpy())
        caption = self.coding.codec.caption_of(original, photo["source"])
        kept = Kept(self.root, name, self.coding.key(original, caption), pixels_digest(original))
        try:
            found = self.spread.first(kept.read())  # ranks may see different things on a network file system
            result = found or self._coded(original, caption, kept, bar)
        finally:
            if bar is not None:
                bar.end()
        record = self._measured(original, result, kept)
        self.records.append(record)
        self.shown.tell(self.records)
        if self.log is not None:
            self.log.image(record, {"original": original, "reconstruction": result.picture, **kept.patterns()})
        return result.picture

    def _coded(self, original: Pixels, caption: str, kept: Kept, bar: Bar | None) -> Result:
        """Compress and restore a photograph; one of its ranks keeps the results."""
        wanted = self.log is not None and self.log.wants_pictures
        patterns = self.coding.codec.signal_codec.first_rows() if wanted else None
        coded = self.coding.coded(original, caption, bar, patterns)
        record = record_of(kept.name, coded, self.spread)
        if self.spread.rank == 0:
            kept.write(coded.data, coded.images, record, None if patterns is None else patterns.picture())
        return Result(coded.images[0], record)

    def _measured(self, original: Pixels, result: Result, kept: Kept) -> Record:
        """The record of an image with its metrics; one of its ranks measures those that are not kept yet."""
        if self.measuring is None or self.spread.rank:
            return completed(result.record, {})
        measured = self.measuring.image(original, result.picture, result.measured)
        if any(column not in result.measured or result.measured[column] != found for column, found in measured.items()):
            kept.add(measured)
        self.measuring.keep(kept.name, original, result.picture)
        return completed(result.record, {column: found["value"] for column, found in measured.items()})
