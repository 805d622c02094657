"""Results that a run keeps of each image, so that a restarted run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pscx.api import Pixels
from pscx.errors import PscxError
from pscx.evaluation.measuring import Measured
from pscx.evaluation.tables import Record
from pscx.images import read_image, write_image
from pscx.runtime.files import write_whole
from pscx.runtime.run_folder import remove_tables
from pscx.runtime.safe_yaml import read_json

FOLDER = "records"


@dataclass(frozen=True)
class Result:
    """The first restoration of an image, its record without metrics, and the metrics that were measured already."""

    picture: Pixels
    record: Record
    measured: Measured = field(default_factory=dict)


class Kept:
    """What a run keeps of one image as soon as it is done.

    ``streams/NAME.pscx`` and ``reconstructions/NAME.png`` (``NAME-1.png``, ...), and in ``records/NAME.json``, which is
    written last, the image's record, the values of metrics, ``original``, the digest of the image's pixels, and
    ``key``, a digest of all that the stream and the restorations depend on. ``records/NAME.png`` is a picture of the
    first rows of the transform, where there is one.
    """

    def __init__(self, root: Path, name: str, key: str, original: str) -> None:
        self.root, self.name, self.key, self.original = root, name, key, original
        self.stream = root / "streams" / f"{name}.pscx"
        self.record = root / FOLDER / f"{name}.json"
        self.pictures = root / "reconstructions"

    def read(self) -> Result | None:
        """The kept results; none if they are incomplete or have another key."""
        try:
            content = read_json(self.record)
            if content["key"] != self.key or sha256(self.stream.read_bytes()).hexdigest() != content["stream"]:
                return None
            pictures = [self._picture(index) for index in range(content["restorations"])]
            if not all(path.exists() for path in pictures):
                return None
            return Result(read_image(pictures[0]), {**content["record"]}, {**content["metrics"]})
        except (OSError, ValueError, KeyError, TypeError, PscxError):
            return None

    def patterns(self) -> dict[str, Pixels]:
        """The picture of the first rows as ``first_rows``, if there is one that can be read."""
        try:
            return {"first_rows": read_image(self.record.with_suffix(".png"))}
        except PscxError:
            return {}

    def write(self, data: bytes, images: list[Pixels], record: Record, patterns: Pixels | None) -> None:
        """Keep an image's results, without metrics. Older tables are removed first."""
        remove_tables(self.root)
        write_whole(self.stream, data, force=True)
        for index, image in enumerate(images):
            write_image(self._picture(index), image, force=True)
        self.record.with_suffix(".png").unlink(missing_ok=True)
        if patterns is not None:
            write_image(self.record.with_suffix(".png"), patterns, force=True)
        content = {"key": self.key, "original": self.original, "stream": sha256(data).hexdigest()}
        self._write({**content, "restorations": len(images), "record": record, "metrics": {}})

    def add(self, measured: Measured) -> None:
        """Add values of metrics to the kept results."""
        content = read_json(self.record)
        self._write({**content, "metrics": {**content["metrics"], **measured}})

    def _write(self, content: Mapping[str, Any]) -> None:
        write_whole(self.record, json.dumps(content).encode(), force=True)

    def _picture(self, index: int) -> Path:
        return self.pictures / f"{self.name}{f'-{index}' if index else ''}.png"


def pixels_digest(pixels: Pixels) -> str:
    """A digest of an image, its size included."""
    return sha256(json.dumps(pixels.shape).encode() + pixels.tobytes()).hexdigest()
