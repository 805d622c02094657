"""Rate and distortion of a codec over a folder of images."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codec import PSC, Account
from pscx.coders import Coder
from pscx.data.folder import Photo
from pscx.files import write_whole
from pscx.imagecodec import Codec, Pixels
from pscx.images import write_image
from pscx.metrics import bits_per_pixel, ms_ssim, psnr, ssim
from pscx.priors import Prior
from pscx.progress import Bars
from pscx.quantizers import Quantizer
from pscx.restorations import Restoration
from pscx.rows import RowRule
from pscx.samplers import Sampler

Row = dict[str, Any]
MEANS = (
    *("bytes", "bpp", "psnr", "ssim", "ms_ssim"),
    *("rows", "evaluations", "network_share", "encode_seconds", "decode_seconds"),
)


class Evaluate(LightningModule):
    """Compress and restore images with PSC, write what came of it, and measure it.

    Under the trainer's ``default_root_dir`` come ``streams/NAME.pscx``, ``reconstructions/NAME.png`` (and
    ``NAME-1.png``, ... for further restorations), ``images.csv`` with a row an image and ``summary.csv`` with the
    means. Distortion is that of the first restoration; bpp counts every byte of the stream. ``evaluations`` are the
    encoder's denoiser evaluations, ``network_share`` the share of its time that these take.

    Args:
        prior: the diffusion model.
        sampler: draws the posterior samples inside the loop.
        rows: chooses what to measure.
        quantizer: turns a measurement into a symbol.
        coder: turns symbols into bytes.
        restoration: makes the final picture from all that was measured.
        restoration_sampler: draws for the restoration; the loop's sampler if none is given.
        samples: posterior samples an iteration, at least 1.
        iterations: rounds of sampling and measuring, at least 1.
        batch: at most this many samples go through the network in one call.
        seed: of all noise, in [0, 2^64).
        restorations: different restorations of an image that are written, at least 1.
        simulate: restore from the encoder's own measurements, which are those that its stream decodes to; then the
            decoder's time is taken to be that of the one loop and of the restorations. Otherwise decode the stream.
        caption: describes each image, for a prior that takes captions; or none.
    """

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
        restorations: int = 1,
        simulate: bool = True,
        caption: Captioner | None = None,
    ) -> None:
        super().__init__()
        if restorations < 1:
            raise ValueError(f"restorations must be at least 1, got {restorations}")
        self.prior = prior
        self.codec = Codec(
            PSC(
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
            ),
            captioner=caption,
        )
        self.restorations, self.simulate = restorations, simulate
        self.images: list[Row] = []
        self.bars: Bars | None = None

    def test_step(self, batch: Photo, batch_idx: int) -> None:
        self.images.append(self._measured(batch))

    def predict_step(self, batch: Photo, batch_idx: int) -> Tensor:
        """The first restoration, ``(3, height, width)`` uint8; stream and restorations are written as in ``test``."""
        images, _ = self._coded(batch)
        return torch.from_numpy(images[0]).movedim(-1, 0)

    def on_test_start(self) -> None:
        self.images = []
        self._start_bars("test")

    def on_predict_start(self) -> None:
        self._start_bars("predict")

    def on_test_epoch_end(self) -> None:
        """Write ``images.csv`` and ``summary.csv`` over all ranks; an image that two ranks had counts once."""
        rows = sorted(self._gathered(), key=lambda row: str(row["name"]))
        if not self.trainer.is_global_zero or not rows:
            return
        means = summary(rows)
        write_whole(self.root / "images.csv", as_csv(rows), force=True)
        write_whole(self.root / "summary.csv", as_csv([means]), force=True)
        self._stop_bars()
        show(means, self.root)

    def teardown(self, stage: str) -> None:
        self._stop_bars()

    @property
    def root(self) -> Path:
        """Where results go."""
        return Path(self.trainer.default_root_dir)

    def _measured(self, photo: Photo) -> Row:
        images, row = self._coded(photo)
        original = _pixels(photo)
        row |= {"psnr": psnr(original, images[0]), "ssim": ssim(original, images[0])}
        return row | {"ms_ssim": ms_ssim(original, images[0])}

    def _coded(self, photo: Photo) -> tuple[list[Pixels], Row]:
        """The restorations of a photograph, and its row of the table without distortion. Writes both."""
        name, original = photo["name"], _pixels(photo)
        if self.bars is not None:
            self.bars.begin(name)
        data, images, account, encode_seconds, decode_seconds = self._both_ways(original)
        write_whole(self.root / "streams" / f"{name}.pscx", data, force=True)
        for index, image in enumerate(images):
            end = f"-{index}" if index else ""
            write_image(self.root / "reconstructions" / f"{name}{end}.png", image, force=True)
        if self.bars is not None:
            self.bars.end()
        height, width = original.shape[:2]
        row = {"name": name, "height": height, "width": width, "bytes": len(data)}
        row |= {"bpp": bits_per_pixel(len(data), height, width), "rows": sum(account.segment_rows)}
        row |= {"evaluations": account.evaluations, "network_share": account.network_seconds / encode_seconds}
        return images, row | {"encode_seconds": encode_seconds, "decode_seconds": decode_seconds}

    def _both_ways(self, original: Pixels) -> tuple[bytes, list[Pixels], Account, float, float]:
        progress = None if self.bars is None else self.bars.advance
        if self.simulate:
            done = self.codec.simulate(original, samples=self.restorations, progress=progress)
            return done.data, done.images, done.account, done.encode_seconds, done.decode_seconds
        encoded = self.codec.encode(original, progress=progress)
        started = time.perf_counter()
        images = self.codec.decompress_samples(encoded.data, self.restorations, progress=progress)
        return encoded.data, images, encoded.account, encoded.account.seconds, time.perf_counter() - started

    def _gathered(self) -> list[Row]:
        if self.trainer.world_size == 1:
            return self.images
        parts: list[list[Row]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, self.images)
        return list({row["name"]: row for part in parts for row in part}.values())

    def _start_bars(self, what: str) -> None:
        total = sum(int(n) for n in self._batches(what)) or None
        alone = self.trainer.is_global_zero and self.trainer.progress_bar_callback is None
        self.bars = Bars(what, total, visible=alone)
        self.bars.__enter__()

    def _batches(self, what: str) -> list[int | float]:
        loop = self.trainer.test_loop if what == "test" else self.trainer.predict_loop
        return [n for n in loop.max_batches if n != float("inf")]

    def _stop_bars(self) -> None:
        if self.bars is not None:
            self.bars.__exit__(None, None, None)
            self.bars = None


def summary(rows: list[Row]) -> Row:
    """Number of images and the mean of each measure over those that have it."""
    means: Row = {"images": len(rows)}
    for key in MEANS:
        values = [row[key] for row in rows if row[key] is not None]
        means[key] = fmean(values) if values else None
    return means


def as_csv(rows: list[Row]) -> bytes:
    """Rows with the same keys as a CSV file with a header; none becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def show(means: Row, root: Path) -> None:
    """Print the means as a table on stdout."""
    table = Table("measure", Column("mean", justify="right"), title=f"{means['images']} images, in {root}")
    for key in MEANS:
        table.add_row(key.replace("_", " "), "-" if means[key] is None else f"{means[key]:.4g}")
    Console().print(table)


def _pixels(photo: Photo) -> Pixels:
    pixels: Pixels = np.ascontiguousarray(photo["pixels"].movedim(0, -1).cpu().numpy())
    return pixels
