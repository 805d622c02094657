"""Calibration of a codec's entropy coding by the code length of a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codecs import PSC
from pscx.coders import CODERS, Encoder, Posterior
from pscx.coders.adaptive import MEMORY, WEIGHT, AdaptiveEncoder, Counts
from pscx.coders.static import StaticEncoder
from pscx.coders.table import VARIABLE, Table
from pscx.registry import NAME
from pscx.runtime.files import write_whole
from pscx.training.codec_file import NAME as CODEC_FILE
from pscx.training.codec_file import codec_file, second_config
from pscx.training.fitting import Group, Recorder, code_length, fit_posterior, fit_table
from pscx.training.over_images import (
    Advance,
    OverImages,
    arrays_file,
    check_held_out,
    codec_key,
    conclude,
    divided,
    read_arrays,
)

Groups = list[Group]
Record = dict[str, Any]


class Calibrate(OverImages[PSC]):
    """Learn the predictive distribution of a codec's symbols by maximum likelihood.

    Learnt are a gain of the predicted spread for each iteration, the degrees of freedom of Student's t, and tables of
    probabilities for each iteration and each ratio of spread to step.

    Every image is encoded once; its symbols do not depend on the coder, so other coders are then measured on the same
    symbols. Under the trainer's ``default_root_dir`` come ``posterior.yaml``, ``static.yaml`` and ``adaptive.yaml``,
    each a config with the ``coder`` that was learnt, to be added to the codec's own by a second ``--config``;
    ``codec.yaml``, the whole codec with the first of them, or with that of its own coder's kind; the table
    ``NAME.json`` that the last two name; and ``calibration.csv`` with the bits before and after. A table is found in
    the folder that the environment variable PSCX_TABLES names, by encoder and decoder alike.

    The symbols of an image are kept in ``observations/NAME.npz`` as soon as it is done. A restarted run reuses them
    for the same codec and image.

    Args:
        codec: the codec to calibrate; the learnt codecs are compared with it.
        caption: describes each image, for a prior that takes captions; or none.
        table: name of the table that is written, a plain lower-case word.
        held_out: every n-th image is measured but not learnt from; ``n`` at least 2, or none to learn from all.
    """

    references = ("elata2025psc",)

    title = "calibrate"

    def __init__(
        self,
        codec: PSC,
        caption: Captioner | None = None,
        table: str = "calibrated",
        held_out: int | None = 5,
    ) -> None:
        if not NAME.fullmatch(table):
            raise ValueError(f"table must be a plain lower-case word, got {table!r}")
        check_held_out(held_out)
        super().__init__(codec, caption, codec_key(codec))
        self.quantizer, self.coder = codec.quantizer, codec.coder
        self.observed = copy(codec)
        self.recorder = self.observed.coder = Recorder(codec.coder)
        self.table, self.held_out = table, held_out

    def observe(self, codec: PSC, signal: Tensor, key: str, advance: Advance) -> bytes:
        codec.encode(signal, advance)
        return groups_file(self.recorder.groups, key)

    def is_whole(self, file: Path, key: str) -> bool:
        return read_groups(file, key) is not None

    def learn(self, names: list[str]) -> None:
        """Learn, measure and write, over the images of all ranks.

        Raises :class:`pscx.errors.ImageError` where what was seen of one is missing.
        """
        images = self.seen(names, read_groups)
        first, second = divided(images, self.held_out)
        together = [group for groups in first for group in groups]
        posterior = fit_posterior(self.quantizer, together, getattr(self.coder, "adapt", True))
        table = fit_table(self.quantizer, together)
        self.write(posterior, table)
        self.stop_bars()
        records = self.compared(posterior, table, first, second)
        conclude(self, "calibration.csv", records, 0 if second else len(first), self.held_out)

    def write(self, posterior: Posterior, table: Table) -> None:
        """The table, and a config for each coder that was learnt."""
        write_whole(self.root / f"{self.table}.json", table.to_json(), force=True)
        named = {"table": self.table, "digest": table.digest}
        coders = [CODERS.spec(posterior), {"name": "static", **named}, {"name": "adaptive", **named}]
        for coder in coders:
            place = f", with {VARIABLE} naming the folder of {self.table}.json" if "table" in coder else ""
            write_whole(self.root / f"{coder['name']}.yaml", second_config({"coder": coder}, place), force=True)
        own = next((coder for coder in coders if CODERS.find(coder["name"]) is type(self.coder)), coders[0])
        write_whole(self.root / CODEC_FILE, codec_file(self.observed, coder=own), force=True)

    def compared(self, posterior: Posterior, table: Table, first: list[Groups], second: list[Groups]) -> list[Record]:
        """Bits of all images, of those that were learnt from and of the others, a coder a record."""
        encoders: dict[str, Callable[[], Encoder]] = {
            "before": self.coder.encoder,
            "posterior": posterior.encoder,
            "static": lambda: StaticEncoder(table),
            "adaptive": lambda: AdaptiveEncoder(Counts(table, WEIGHT, MEMORY)),
        }
        records: list[Record] = []
        for name, make in encoders.items():
            learnt, others = (sum(code_length(make(), self.quantizer, one) for one in part) for part in (first, second))
            records.append({"coder": name, "learnt_bits": learnt, "held_out_bits": others if second else None})
        measure = "held_out_bits" if second else "learnt_bits"
        for record in records:
            first_bits = records[0][measure]
            record["saved_percent"] = 100 * (1 - record[measure] / first_bits) if first_bits else 0.0
        return records


def groups_file(groups: Groups, key: str) -> bytes:
    """The content of an observations file."""
    sizes = np.array([(group.segment, len(group.symbols)) for group in groups], np.int64).reshape(-1, 2)
    parts = {
        name: np.concatenate([np.zeros(0), *(getattr(group, name).numpy() for group in groups)])
        for name in ("symbols", "mean", "scale")
    }
    return arrays_file(key, sizes=sizes, **parts)


def read_groups(file: Path, key: str | None = None) -> Groups | None:
    """What :func:`groups_file` holds; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("sizes", "symbols", "mean", "scale"))
    if arrays is None:
        return None
    sizes, *parts = arrays
    counts = sizes[:, 1].tolist()
    pieces = zip(sizes[:, 0].tolist(), *(torch.split(torch.from_numpy(part), counts) for part in parts), strict=True)
    return [Group(segment, symbols.long(), mean, scale) for segment, symbols, mean, scale in pieces]
