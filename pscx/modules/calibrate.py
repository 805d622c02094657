"""Calibration of a codec's entropy coding by the code length of a folder of images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid

from pscx.captioners import Captioner
from pscx.codec import PSC
from pscx.coders import CODERS, Coder, Encoder, Posterior
from pscx.coders.adaptive import AdaptiveEncoder, Counts
from pscx.coders.static import StaticEncoder
from pscx.coders.table import VARIABLE, Table
from pscx.data.base import Photo
from pscx.errors import ImageError
from pscx.files import write_whole
from pscx.fitting import Group, Recorder, code_length, fit_posterior, fit_table
from pscx.imagecodec import Codec, signal_of
from pscx.modules.evaluate import as_csv
from pscx.priors import Prior
from pscx.progress import Bars
from pscx.quantizers import Quantizer
from pscx.registry import NAME
from pscx.restorations import Restoration
from pscx.rows import RowRule
from pscx.samplers import Sampler
from pscx.specs import codec_spec

Groups = list[Group]
Row = dict[str, Any]


class Calibrate(LightningModule):
    """Learn the predictive distribution from what a codec codes, by maximum likelihood.

    Learnt are a gain of the predicted spread for each iteration, the degrees of freedom of Student's t, and tables of
    probabilities for each iteration and each ratio of spread to step.

    Every image is encoded once; its symbols do not depend on the coder, so other coders are then measured on the same
    symbols. Under the trainer's ``default_root_dir`` come ``posterior.yaml``, ``static.yaml`` and ``adaptive.yaml``,
    each a config with the ``coder`` that was learnt, to be added to the codec's own by a second ``--config``; the table
    ``NAME.json`` that the last two name; and ``calibration.csv`` with the bits before and after. A table is found in
    the folder that the environment variable PSCX_TABLES names, by encoder and decoder alike.

    What was coded is kept in ``observations/NAME.npz`` as soon as an image is done. A run that was interrupted and is
    started again takes from there what the same codec has coded of the same image.

    Args:
        prior: the diffusion model.
        sampler: draws the posterior samples inside the loop.
        rows: chooses what to measure.
        quantizer: turns a measurement into a symbol.
        coder: what the others are compared with.
        restoration: makes the final picture; none is made here.
        restoration_sampler: draws for the restoration.
        samples: posterior samples an iteration, at least 1.
        iterations: rounds of sampling and measuring, at least 1.
        batch: at most this many samples go through the network in one call.
        seed: of all noise, in [0, 2^64).
        caption: describes each image, for a prior that takes captions; or none.
        table: name of the table that is written, a plain lower-case word.
        held_out: every so many-th image is only measured and not learnt from, at least 2; none to hold out nothing.
    """

    references = ("elata2025psc",)

    def __init__(
        self,
        prior: Prior,
        sampler: Sampler,
        rows: RowRule,
        quantizer: Quantizer,
        coder: Coder,
        restoration: Restoration,
        restoration_sampler: Sampler | None = None,
        samples: int = 4,
        iterations: int = 8,
        batch: int = 4,
        seed: int = 0,
        caption: Captioner | None = None,
        table: str = "calibrated",
        held_out: int | None = 5,
    ) -> None:
        super().__init__()
        if not NAME.fullmatch(table):
            raise ValueError(f"table must be a plain lower-case word, got {table!r}")
        if held_out is not None and held_out < 2:
            raise ValueError(f"held_out must be at least 2, or none, got {held_out}")
        self.automatic_optimization = False
        self.prior, self.quantizer, self.coder = prior, quantizer, coder
        self.psc = PSC(
            prior,
            sampler,
            rows,
            quantizer,
            coder,
            restoration,
            restoration_sampler,
            samples=samples,
            iterations=iterations,
            batch=batch,
            seed=seed,
        )
        self.codec = Codec(self.psc, captioner=caption)
        self.key = codec_key(self.psc)
        self.recorder = self.psc.coder = Recorder(coder)
        self.table, self.held_out = table, held_out
        self.names: list[str] = []
        self.bars: Bars | None = None

    def configure_optimizers(self) -> None:
        """Nothing descends a gradient here."""

    def on_train_start(self) -> None:
        self.prior.eval()
        self.names = []
        alone = self.trainer.is_global_zero and self.trainer.progress_bar_callback is None
        batches = self.trainer.num_training_batches
        self.bars = Bars("calibrate", None if batches == float("inf") else int(batches), visible=alone)
        self.bars.__enter__()

    def training_step(self, batch: Photo, batch_idx: int) -> None:
        name = batch["name"]
        if batch["error"]:
            raise ImageError(batch["error"])
        pixels = np.ascontiguousarray(batch["pixels"].movedim(0, -1).cpu().numpy())
        caption = self.codec.caption_of(pixels)
        facts = [self.key, np.array(pixels.shape, "<i8").tobytes(), pixels.tobytes(), caption.encode()]
        key = sha256(b"".join(facts)).hexdigest()
        assert self.bars is not None
        bar = self.bars.begin(name)
        if read_groups(self.file_of(name), key) is None:
            psc = self.psc.conditioned(caption)
            psc.encode(signal_of(psc, pixels), bar.advance)
            write_whole(self.file_of(name), groups_file(self.recorder.groups, key), force=True)
        self.names.append(name)
        bar.end()

    def on_train_end(self) -> None:
        """Learn, measure and write, over the images of all ranks."""
        names = sorted(self._gathered())
        if not self.trainer.is_global_zero or not names:
            return
        images = [groups for name in names if (groups := read_groups(self.file_of(name))) is not None]
        first, second = divided(images, self.held_out)
        together = [group for groups in first for group in groups]
        posterior = fit_posterior(self.quantizer, together, getattr(self.coder, "adapt", True))
        table = fit_table(self.quantizer, together)
        self.write(posterior, table)
        self.stop_bars()
        rows = self.compared(posterior, table, first, second)
        write_whole(self.root / "calibration.csv", as_csv(rows), force=True)
        show(rows, self.root)
        if not second:
            print(caution(len(first), self.held_out))

    def teardown(self, stage: str) -> None:
        self.stop_bars()

    @property
    def root(self) -> Path:
        """Where results go."""
        return Path(self.trainer.default_root_dir)

    def file_of(self, name: str) -> Path:
        """Where the symbols of an image are kept."""
        return self.root / "observations" / f"{name}.npz"

    def stop_bars(self) -> None:
        """Take the progress bars off the screen."""
        if self.bars is not None:
            self.bars.__exit__(None, None, None)
            self.bars = None

    def write(self, posterior: Posterior, table: Table) -> None:
        """The table, and a config for each coder that was learnt."""
        write_whole(self.root / f"{self.table}.json", table.to_json(), force=True)
        named = {"table": self.table, "digest": table.digest}
        coders = [CODERS.spec(posterior), {"name": "static", **named}, {"name": "adaptive", **named}]
        for coder in coders:
            place = f", with {VARIABLE} naming the folder of {self.table}.json" if "table" in coder else ""
            head = f"# What pscx fit learnt: a second --config beside that of the codec{place}.\n"
            text = head + yaml.safe_dump({"model": {"coder": coder}}, sort_keys=False)
            write_whole(self.root / f"{coder['name']}.yaml", text.encode(), force=True)

    def compared(self, posterior: Posterior, table: Table, first: list[Groups], second: list[Groups]) -> list[Row]:
        """Bits of all images, of those that were learnt from and of the others, a coder a row."""
        encoders: dict[str, Callable[[], Encoder]] = {
            "before": self.coder.encoder,
            "posterior": posterior.encoder,
            "static": lambda: StaticEncoder(table),
            "adaptive": lambda: AdaptiveEncoder(Counts(table, 16, 2048)),
        }
        rows: list[Row] = []
        for name, make in encoders.items():
            learnt, others = (sum(code_length(make(), self.quantizer, one) for one in part) for part in (first, second))
            rows.append({"coder": name, "learnt_bits": learnt, "held_out_bits": others if second else None})
        measure = "held_out_bits" if second else "learnt_bits"
        for row in rows:
            row["saved_percent"] = 100 * (1 - row[measure] / rows[0][measure]) if rows[0][measure] else 0.0
        return rows

    def _gathered(self) -> set[str]:
        if self.trainer.world_size == 1:
            return set(self.names)
        parts: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, self.names)
        return {name for part in parts for name in part}


def codec_key(psc: PSC) -> bytes:
    """What identifies a codec up to its coder: the same images then give the same symbols."""
    spec = {key: value for key, value in codec_spec(psc).items() if key != "coder"}
    facts = [json.dumps(spec, sort_keys=True), psc.quantizer.parameter, psc.seed, psc.prior.fingerprint().hex()]
    return sha256(json.dumps(facts).encode()).digest()


def divided(images: list[Groups], held_out: int | None) -> tuple[list[Groups], list[Groups]]:
    """Those to learn from, and every ``held_out``-th one."""
    if held_out is None:
        return images, []
    return [one for i, one in enumerate(images, 1) if i % held_out], images[held_out - 1 :: held_out]


def groups_file(groups: Groups, key: str) -> bytes:
    """The content of an observations file."""
    sizes = np.array([(group.segment, len(group.symbols)) for group in groups], np.int64).reshape(-1, 2)
    parts = {
        name: np.concatenate([np.zeros(0), *(getattr(group, name).numpy() for group in groups)])
        for name in ("symbols", "mean", "scale")
    }
    file = io.BytesIO()
    np.savez(file, key=np.array(key), sizes=sizes, **parts)  # type: ignore[arg-type]
    return file.getvalue()


def read_groups(file: Path, key: str | None = None) -> Groups | None:
    """What :func:`groups_file` holds; none where there is no such file, it is damaged or has another key."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
            sizes, kept = found["sizes"], str(found["key"])
            parts = [torch.from_numpy(found[name]) for name in ("symbols", "mean", "scale")]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    if key not in (None, kept):
        return None
    counts = sizes[:, 1].tolist()
    pieces = zip(sizes[:, 0].tolist(), *(torch.split(part, counts) for part in parts), strict=True)
    return [Group(segment, symbols.long(), mean, scale) for segment, symbols, mean, scale in pieces]


def caution(images: int, held_out: int | None) -> str:
    """A sentence for a report whose savings are those of the images that were learnt from."""
    remedy = "set held_out" if held_out is None else f"give at least {held_out}, of which every {held_out}. is held out"
    return f"saved percent is of the {images} images that were learnt from, which flatters: none was held out; {remedy}"


def show(rows: list[Row], root: Path) -> None:
    """Print the bits before and after as a table on stdout."""
    grid = Grid(
        "coder", *(Column(key.replace("_", " "), justify="right") for key in list(rows[0])[1:]), title=str(root)
    )
    for row in rows:
        grid.add_row(row["coder"], *("-" if v is None else f"{v:.1f}" for v in list(row.values())[1:]))
    Console().print(grid)
