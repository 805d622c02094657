"""Tables of records as CSV, their means, and the list of left-out images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor

from pscx.errors import LeftOutError
from pscx.evaluation import measures
from pscx.runtime.files import write_whole
from pscx.runtime.printing import printable
from pscx.runtime.run_folder import remove_tables

Record = dict[str, Any]
"""What is known of one image, by the columns of the table."""

PLACE = ("name", "height", "width")
"""Columns that have no mean."""
RATES = ("bytes", "bpp")
COSTS = ("measurements", "encodings", "evaluations", "network_share", "encode_seconds", "decode_seconds")
COUNTS = ("images", "left_out")
"""Columns of the means that are none."""
NAMED = 20  # images that an error names at most


def completed(record: Record, values: Mapping[str, Any]) -> Record:
    """A record with all columns in order, with the ``values`` of metrics after the rate; none if it lacks one."""
    return {**{key: record.get(key) for key in (*PLACE, *RATES)}, **values, **{key: record.get(key) for key in COSTS}}


def summary(records: Sequence[Mapping[str, Any]]) -> Record:
    """Number of images and the mean of each column over those that have it."""
    means: Record = {"images": len(records)}
    for key in dict.fromkeys(key for record in records for key in record if key not in PLACE):
        values = [record[key] for record in records if record.get(key) is not None]
        means[key] = fmean(values) if values else None
    return means


def logged(means: Record, device: torch.device) -> dict[str, float | Tensor]:
    """The means that there are, ``mean/NAME``, as LightningModules log them: in float64 where the device has that."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    known = {key: value for key, value in means.items() if value is not None}
    return {f"mean/{key}": torch.tensor(value, dtype=dtype, device=device) for key, value in known.items()}


def as_csv(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as a CSV file with a header of all keys; none and missing keys become empty fields."""
    text = io.StringIO()
    header = dict.fromkeys(key for record in records for key in record)
    writer = csv.DictWriter(text, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def write_tables(
    root: Path,
    records: Sequence[Record],
    means: Record,
    facts: Mapping[str, Mapping[str, Any]],
) -> None:
    """The tables in place of those of an earlier run; those of means last. ``facts`` are those of the metrics."""
    remove_tables(root)
    if records:
        write_whole(root / measures.FILE, measures.as_json(facts), force=True)
        write_whole(root / "images.csv", as_csv(records), force=True)
        write_whole(root / "summary.csv", as_csv([means]), force=True)


def write_left_out(root: Path, failures: Mapping[str, str]) -> None:
    """``left_out.csv`` with the name of each image that was left out and why; no such file where there are none."""
    table = root / "left_out.csv"
    table.unlink(missing_ok=True)
    if failures:
        records = [{"name": name, "reason": reason} for name, reason in sorted(failures.items())]
        write_whole(table, as_csv(records), force=True)


def left_out(failures: Mapping[str, str], verb: str) -> LeftOutError:
    """The error at the end of a run in which some images could not be processed, such as ``coded``."""
    count = f"{len(failures)} of the images" if len(failures) > 1 else "one of the images"
    reasons = [*failures.values()][:NAMED]
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return LeftOutError(f"{count} could not be {verb}, all others are done: {'; '.join(reasons)}{more}")


def show(means: Record, root: Path) -> None:
    """Print the means as a table on stdout."""
    count = f"{means['images']} image{'s' * (means['images'] != 1)}"
    title = Text(printable(f"{count}, in {root}"), style="table.title", justify="center")
    table = Table("measure", Column("mean", justify="right"), title=title)
    for key in (key for key in means if key not in COUNTS):
        table.add_row(key.replace("_", " "), "-" if means[key] is None else f"{means[key]:.4g}")
    Console().print(table)
