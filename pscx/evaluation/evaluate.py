"""Rate and distortion of a codec over a folder of images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sized
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from pscx.api import Codec, Pixels
from pscx.captioners import Captioner
from pscx.codecs import Account, Patterns, SignalCodec, Watch
from pscx.codecs.specs import codec_spec
from pscx.codecs.user_recipes import user_digest
from pscx.config import ConfigError
from pscx.data.base import Photo
from pscx.errors import LeftOutError, PscxError
from pscx.evaluation.log import Log, figures
from pscx.execution.batching import Task, clock, together
from pscx.execution.sharding import ALONE, spread_over
from pscx.format.container import VERSION
from pscx.format.limits import UNBOUNDED
from pscx.images import read_image, write_image
from pscx.metrics import bits_per_pixel, ms_ssim, psnr, ssim
from pscx.rate_control import TARGETS, Target
from pscx.runtime.files import write_whole
from pscx.runtime.progress import Bar, Bars
from pscx.runtime.run_folder import remove_tables
from pscx.runtime.safe_yaml import read_json

Row = dict[str, Any]
QUALITY = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
"""Measures that are made of an original and its reconstruction."""
NAMED = 20  # images that an error names at most
MEANS = (
    *("bytes", "bpp", "psnr", "ssim", "ms_ssim"),
    *("rows", "encodings", "evaluations", "network_share", "encode_seconds", "decode_seconds"),
)


class Evaluate(LightningModule):
    """Compress and restore images with a codec, write what came of it, and measure it.

    Under the trainer's ``default_root_dir`` come ``streams/NAME.pscx``, ``reconstructions/NAME.png`` (and
    ``NAME-1.png``, ... for further restorations), ``images.csv`` with a row an image and ``summary.csv`` with the
    means. The trainer's loggers get both as numbers, and pictures; see :class:`pscx.evaluation.log.Log`. Distortion is
    that of the first restoration; bpp counts every byte of the stream. ``encodings`` is how often the image was
    encoded, for a target; ``evaluations`` are the encoder's denoiser evaluations in all of them, ``network_share`` the
    share of its time that these take.

    An image's row is kept in ``rows/NAME.json`` as soon as it is done. A run that was interrupted and is started again
    takes from there what the same codec made of the same image; a measure that it lacks is made of the kept
    reconstruction, or stays empty. An image with an error of its own (it cannot be read, its stream misses the target,
    its results cannot be written) is left out of the tables and named in ``left_out.csv``, and the run ends with an
    error that names it.

    Args:
        codec: compresses and restores.
        restorations: different restorations of an image that are written, at least 1.
        simulate: restore from the encoder's own measurements, which are those that its stream decodes to; then the
            decoder's time is taken to be that of the one loop and of the restorations. Otherwise decode the stream.
        caption: describes each image, for a prior that takes captions; or none.
        ranks_per_image: processes that share the samples of an image, of which the number of processes must be a
            multiple; the others take other images. ``auto`` is 1 where there are at least as many images as
            processes, else as many as leave none without an image. Streams and figures do not depend on it, nor on the
            number of processes, except for seconds.
        target: what each stream is to be, in bits per pixel or another measure, by the quantizer's parameter; or none.
        logged_pictures: of at most this many images the loggers get the original, the reconstruction and the first
            rows of the block in the middle, at least 0; where several processes take images, of the first one's.
    """

    references = ("elata2025psc",)

    without_effect = ("ranks_per_image", "logged_pictures")
    """Options that change no result: a run with others is the same run."""

    def __init__(
        self,
        codec: SignalCodec,
        restorations: int = 1,
        simulate: bool = True,
        caption: Captioner | None = None,
        ranks_per_image: int | Literal["auto"] = "auto",
        target: Target | None = None,
        logged_pictures: int = 8,
    ) -> None:
        super().__init__()
        if restorations < 1:
            raise ValueError(f"restorations must be at least 1, got {restorations}")
        if ranks_per_image != "auto" and ranks_per_image < 1:
            raise ValueError(f"ranks_per_image must be auto or at least 1, got {ranks_per_image}")
        if logged_pictures < 0:
            raise ValueError(f"logged_pictures must be at least 0, got {logged_pictures}")
        self.network = codec.network  # Lightning moves it to its device
        self.codec = Codec(codec, captioner=caption, target=target, limits=UNBOUNDED)
        self.restorations, self.simulate, self.ranks_per_image = restorations, simulate, ranks_per_image
        self.spread = ALONE
        self.images: list[Row] = []
        self.failures: dict[str, str] = {}
        self.bars: Bars | None = None
        self.logged_pictures = logged_pictures
        self.log_book: Log | None = None
        self.folder: Path | None = None

    def setup(self, stage: str) -> None:
        """Find this process's place among those of an image.

        Raises ``ConfigError`` where there is none, or where processes do not see the same images.
        """
        photos = getattr(getattr(self.trainer, "datamodule", None), "photos", None)
        self._check_alike(getattr(photos, "names", None))
        images = len(photos) if isinstance(photos, Sized) else None  # a stream has no length
        world = self.trainer.world_size
        size = _ranks_per_image(self.ranks_per_image, world, images)
        self.spread = self.codec.signal_codec.spread = spread_over(world, self.trainer.global_rank, size)

    @property
    def image_share(self) -> tuple[int, int]:
        """Into how many shares the images are cut, and which of them is this process's."""
        size = self.spread.size
        return self.trainer.world_size // size, self.trainer.global_rank // size

    def test_step(self, batch: Photo | list[Photo], batch_idx: int) -> None:
        self._all_done(_photos(batch))

    def predict_step(self, batch: Photo | list[Photo], batch_idx: int) -> Tensor | list[Tensor]:
        """The first restoration, ``(3, height, width)`` uint8, empty for a file that is left out; of each of a list.

        Streams and restorations are written as in ``test``.
        """
        photos = _photos(batch)
        shown = [
            photo["pixels"][:, :0, :0] if done is None else torch.from_numpy(done[0]).movedim(-1, 0)
            for photo, done in zip(photos, self._all_done(photos), strict=True)
        ]
        return shown if isinstance(batch, list) else shown[0]

    def on_test_start(self) -> None:
        self._start("test")
        if self.trainer.is_global_zero and self.trainer.loggers:
            self.log_book = Log(self.trainer.loggers, self.logged_pictures)

    def on_predict_start(self) -> None:
        self._start("predict")

    def on_test_epoch_end(self) -> None:
        """Write the tables over all ranks. Raises ``LeftOutError`` where images were left out."""
        rows = sorted(self._gathered(self.images), key=lambda row: str(row["name"]))
        failures = self._all_failures()
        if self.trainer.is_global_zero:
            means = self._write_tables(rows, failures)
            self._stop_bars()
            if rows and self.log_book is not None:
                self.log_book.end(rows, means)
            if rows:
                show(means, self.root)
        self._raise(failures)

    def on_predict_epoch_end(self) -> None:
        failures = self._all_failures()
        if self.trainer.is_global_zero:
            write_left_out(self.root, failures)
        self._raise(failures)

    def teardown(self, stage: str) -> None:
        self._stop_bars()

    @property
    def root(self) -> Path:
        """Where results go: of all processes, where those of the first one do."""
        return self.folder or Path(self.trainer.default_root_dir)

    def _check_alike(self, names: list[str] | None) -> None:
        """An image that only some of the processes see would be waited for in vain, or be done twice."""
        if self.trainer.world_size == 1 or names is None:
            return
        seen: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(seen, names)
        if any(other != seen[0] for other in seen):
            counts = ", ".join(str(len(other)) for other in seen)
            raise ConfigError(f"all processes must see the same images, but they see {counts}, not the same ones")

    def _write_tables(self, rows: list[Row], failures: dict[str, str]) -> Row:
        """The tables in place of those of an earlier run; those of means last. Returns the means."""
        remove_tables(self.root)
        means = {**summary(rows), "left_out": len(failures)}
        write_left_out(self.root, failures)
        if rows:
            write_whole(self.root / "images.csv", as_csv(rows), force=True)
            write_whole(self.root / "summary.csv", as_csv([means]), force=True)
        return means

    def _all_done(self, photos: list[Photo]) -> list[tuple[Pixels, Row] | None]:
        """:meth:`_done` of each photograph, with network calls that they share; none for one that is left out.

        An error that is no image's own stops the run when the others are done. Processes that share an image's
        samples take one image at a time, so that they exchange those of the same one; the first of them reads it.
        """
        photos = [self.spread.first(photo) for photo in photos]
        size = len(photos) if self.spread.size == 1 else 1
        tasks = [Task(partial(self._done, photo), self.codec.shares_calls) for photo in photos]
        results: list[tuple[Pixels, Row] | None] = []
        errors: list[Exception] = []
        for photo, result in zip(photos, together(tasks, size), strict=True):
            if isinstance(result, PscxError):
                self.failures[photo["name"]] = f"'{photo['name']}': {result}"
            elif isinstance(result, Exception):
                errors.append(result)
            results.append(None if isinstance(result, Exception) else result)
        if errors:
            raise errors[0]
        return results

    def _done(self, photo: Photo) -> tuple[Pixels, Row] | None:
        """The first restoration of a photograph and its row of the table, from an earlier run if that has it."""
        name = photo["name"]
        if photo["error"]:
            self.failures[name] = photo["error"]
            return None
        bar = None if self.bars is None else self.bars.begin(name)
        original = _pixels(photo)
        caption = self.codec.caption_of(original)
        kept = Kept(self.root, name, self._key(original, caption))
        wanted = self.log_book is not None and self.log_book.wants_pictures
        patterns = self.codec.signal_codec.first_rows() if wanted else None
        try:
            found = self.spread.first(kept.read())  # ranks may see different things on a network file system
            picture, row = found or self._coded(original, caption, kept, bar, patterns)
        finally:
            if bar is not None:
                bar.end()
        row = completed(row, original, picture)
        self.images.append(row)
        if self.bars is not None:
            self.bars.tell(figures(self.images))
        if self.log_book is not None:
            self.log_book.image(row, {"original": original, "reconstruction": picture, **kept.patterns()})
        return picture, row

    def _key(self, original: Pixels, caption: str) -> str:
        """What an image's result depends on, as a digest: another key, and it is made anew."""
        codec = self.codec.signal_codec
        spec = codec_spec(codec)
        options = [spec, codec.parameter, codec.seed, codec.fingerprint().hex()]
        options += filter(None, [user_digest(spec).hex()])  # a stream that names a recipe is shorter
        options += [self.restorations, self.simulate, caption]
        options += [None if self.codec.target is None else TARGETS.spec(self.codec.target)]
        told = json.dumps([VERSION, *options, original.shape], sort_keys=True).encode()
        return sha256(told + original.tobytes()).hexdigest()

    def _coded(
        self, original: Pixels, caption: str, kept: Kept, bar: Bar | None, patterns: Patterns | None
    ) -> tuple[Pixels, Row]:
        """Compress and restore a photograph, and have one of its processes keep what came of it."""
        data, images, account, encode_seconds, decode_seconds = self._both_ways(original, caption, bar, patterns)
        height, width = original.shape[:2]
        row = {"name": kept.name, "height": height, "width": width, "bytes": len(data)}
        row |= {"bpp": bits_per_pixel(len(data), height, width), "rows": sum(account.segment_rows)}
        row |= {"encodings": account.encodings, "evaluations": self.spread.total(account.evaluations)}
        row |= {"network_share": account.network_seconds / encode_seconds}
        row |= {"encode_seconds": encode_seconds, "decode_seconds": decode_seconds}
        row |= {name: measure(original, images[0]) for name, measure in QUALITY.items()}
        if self.spread.rank == 0:
            kept.write(data, images, row, None if patterns is None else patterns.picture())
        return images[0], row

    def _both_ways(
        self, original: Pixels, caption: str, bar: Bar | None, watch: Watch | None
    ) -> tuple[bytes, list[Pixels], Account, float, float]:
        progress = None if bar is None else bar.advance
        on_trial = None if bar is None or self.codec.target is None else bar.trial
        if self.simulate:
            done = self.codec.simulate(
                original,
                samples=self.restorations,
                caption=caption,
                progress=progress,
                on_trial=on_trial,
                watch=watch,
            )
            return done.data, done.images, done.account, done.encode_seconds, done.decode_seconds
        encoded = self.codec.encode(original, caption=caption, progress=progress, on_trial=on_trial, watch=watch)
        started = clock()
        images = self.codec.decompress_samples(encoded.data, self.restorations, progress=progress)
        return encoded.data, images, encoded.account, encoded.account.seconds, clock() - started

    def _gathered(self, own: list[Any]) -> list[Any]:
        """The lists of the first process of each image, one after the other."""
        own = own if self.spread.rank == 0 else []
        if self.trainer.world_size == 1:
            return own
        parts: list[list[Any]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, own)
        return [item for part in parts for item in part]

    def _all_failures(self) -> dict[str, str]:
        """Why each image that was left out was, on all ranks."""
        return dict(self._gathered(list(self.failures.items())))

    def _raise(self, failures: dict[str, str]) -> None:
        """One error for all images that were left out, if there are any."""
        if failures:
            self._stop_bars()
            raise left_out(failures, "coded")

    def _start(self, what: str) -> None:
        """Nothing is done yet, and the bars say so."""
        self.images, self.failures, self.log_book = [], {}, None
        size = getattr(getattr(self.trainer, "datamodule", None), "batch_size", 1)  # the last batch may be smaller
        total = size * sum(int(n) for n in self._batches(what)) or None
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


class Kept:
    """What a run keeps of an image as soon as it is done, so that a run that is started again goes on from there.

    ``streams/NAME.pscx`` and ``reconstructions/NAME.png`` (``NAME-1.png``, ...), and in ``rows/NAME.json``, which is
    written last, the row of the table and ``key``, a digest of all that the result depends on. ``rows/NAME.png`` is a
    picture of the first rows, where there is one.
    """

    def __init__(self, root: Path, name: str, key: str) -> None:
        self.root, self.name, self.key = root, name, key
        self.stream = root / "streams" / f"{name}.pscx"
        self.row = root / "rows" / f"{name}.json"
        self.pictures = root / "reconstructions"

    def read(self) -> tuple[Pixels, Row] | None:
        """The first restoration and the row; none where they are not whole, or of another key."""
        try:
            content = read_json(self.row)
            if content["key"] != self.key or sha256(self.stream.read_bytes()).hexdigest() != content["stream"]:
                return None
            pictures = [self._picture(index) for index in range(content["restorations"])]
            return (read_image(pictures[0]), content["row"]) if all(path.exists() for path in pictures) else None
        except (OSError, ValueError, KeyError, TypeError, PscxError):
            return None

    def patterns(self) -> dict[str, Pixels]:
        """The picture of the first rows as ``first_rows``, if there is one that can be read."""
        try:
            return {"first_rows": read_image(self.row.with_suffix(".png"))}
        except PscxError:
            return {}

    def write(self, data: bytes, images: list[Pixels], row: Row, patterns: Pixels | None) -> None:
        """Keep an image's results. Tables that tell of earlier ones go first."""
        remove_tables(self.root)
        write_whole(self.stream, data, force=True)
        for index, image in enumerate(images):
            write_image(self._picture(index), image, force=True)
        self.row.with_suffix(".png").unlink(missing_ok=True)
        if patterns is not None:
            write_image(self.row.with_suffix(".png"), patterns, force=True)
        content = {"key": self.key, "stream": sha256(data).hexdigest(), "restorations": len(images), "row": row}
        write_whole(self.row, json.dumps(content).encode(), force=True)

    def _picture(self, index: int) -> Path:
        return self.pictures / f"{self.name}{f'-{index}' if index else ''}.png"


def _ranks_per_image(wanted: int | str, world: int, images: int | None) -> int:
    """How many of ``world`` processes work on one of so many images. Raises ``ConfigError`` where it does not fit."""
    if wanted == "auto":
        fitting = [size for size in range(1, world + 1) if world % size == 0 and world // size <= (images or world)]
        return fitting[0] if fitting else world
    size = int(wanted)
    if world % size:
        raise ConfigError(f"ranks_per_image must divide the number of processes, {world}, got {size}")
    if images is not None and world // size > images:
        raise ConfigError(f"ranks_per_image must be larger, or auto: {images} images are too few for {world} processes")
    return size


def completed(row: Row, original: Pixels, picture: Pixels) -> Row:
    """A row with all measures: what an older run did not measure is made of the picture, or none."""
    if all(key in row for key in MEANS):
        return row
    known = dict.fromkeys(("name", "height", "width", *MEANS)) | row
    return known | {name: measure(original, picture) for name, measure in QUALITY.items() if name not in row}


def write_left_out(root: Path, failures: Mapping[str, str]) -> None:
    """``left_out.csv`` with the name of each image that was left out and why; no such file where there are none."""
    table = root / "left_out.csv"
    table.unlink(missing_ok=True)
    if failures:
        rows = [{"name": name, "reason": reason} for name, reason in sorted(failures.items())]
        write_whole(table, as_csv(rows), force=True)


def left_out(failures: Mapping[str, str], verb: str) -> LeftOutError:
    """The error at the end of a run some of whose images could not be ``coded``, say: the others are done."""
    count = f"{len(failures)} of the images" if len(failures) > 1 else "one of the images"
    reasons = [*failures.values()][:NAMED]
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return LeftOutError(f"{count} could not be {verb}, all others are done: {'; '.join(reasons)}{more}")


def summary(rows: list[Row]) -> Row:
    """Number of images and the mean of each measure over those that have it."""
    means: Row = {"images": len(rows)}
    for key in MEANS:
        values = [row[key] for row in rows if row.get(key) is not None]
        means[key] = fmean(values) if values else None
    return means


def as_csv(rows: list[Row]) -> bytes:
    """Rows as a CSV file with a header of all their keys; none, and a key that a row lacks, becomes an empty field."""
    text = io.StringIO()
    header = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def show(means: Row, root: Path) -> None:
    """Print the means as a table on stdout."""
    table = Table("measure", Column("mean", justify="right"), title=f"{means['images']} images, in {root}")
    for key in MEANS:
        table.add_row(key.replace("_", " "), "-" if means[key] is None else f"{means[key]:.4g}")
    Console().print(table)


def _photos(batch: Photo | list[Photo]) -> list[Photo]:
    return batch if isinstance(batch, list) else [batch]


def _pixels(photo: Photo) -> Pixels:
    pixels: Pixels = np.ascontiguousarray(photo["pixels"].movedim(0, -1).cpu().numpy())
    return pixels
