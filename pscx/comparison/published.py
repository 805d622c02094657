"""Figures that others published, as ``published/*.json`` hold them: facts, each file with its source and commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pscx.comparison.curve import Compared
from pscx.comparison.published_sets import SETS
from pscx.evaluation.measures import Measure

FOLDER = Path(__file__).parent / "published"
JPEG, AV1 = "jpeg", "av1"
MEASURES = {
    "psnr": Measure("PSNR", "dB"),
    "ms_ssim": Measure("MS-SSIM"),
    "lpips": Measure("LPIPS", higher_is_better=False),
    "dists": Measure("DISTS", higher_is_better=False),
    "fid": Measure("FID", higher_is_better=False, of_set=True),
    "kid": Measure("KID", higher_is_better=False, of_set=True),
}
"""The metrics of published figures, by the columns that runs call them."""


def published(name: str) -> list[Compared]:
    """The published curves of a set of :data:`SETS`: AV1 first where it is there, then in the order of the sources.

    >>> [curve.title for curve in published("kodak")][:2]
    ['AV1', 'JPEG']
    """
    found = [curve for file in sorted(FOLDER.glob("*.json")) for curve in _of_file(file, name)]
    return sorted(found, key=lambda curve: curve.key != AV1)


def _of_file(file: Path, name: str) -> Iterator[Compared]:
    facts = json.loads(file.read_text(encoding="utf-8"))
    columns = facts["metrics"][1:]  # the first is the rate
    for key, curve in facts["sets"].get(name, {}).items():
        points = {
            column: [(point[0], point[place]) for point in curve["points"] if point[place] is not None]
            for place, column in enumerate(columns, 1)
        }
        shown = {column: pairs for column, pairs in points.items() if pairs}
        yield Compared(key, curve["title"], facts["source"], SETS[name].images, shown, measured=False)
