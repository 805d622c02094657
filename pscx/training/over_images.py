"""Base of modules that run a codec once over each image and learn from the observations."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid
from torch import Tensor

from pscx.api import Codec
from pscx.captioners import Captioner
from pscx.codecs import PSC, PriorCodec
from pscx.codecs.pixels import check_encoding, signal_of
from pscx.codecs.specs import codec_spec
from pscx.data.base import Photo
from pscx.errors import ImageError, PscxError
from pscx.evaluation.tables import as_csv, left_out, write_left_out
from pscx.runtime.files import write_whole
from pscx.runtime.progress import Bar, Bars

Advance = Callable[[int, int], None]
AFTER = ("coder", "restoration", "restoration_sampler")  # options that do not change symbols
T = TypeVar("T")
C = TypeVar("C", bound=PriorCodec)


class OverImages(LightningModule, ABC, Generic[C]):
    """Observe each image once, keep the observation in ``observations/NAME.npz``, and learn from all at the end.

    The files lie under the trainer's ``default_root_dir``. A run that was interrupted and is started again takes from
    there the observations of the same codec and image. An image with an error of its own is left out and named in
    ``left_out.csv``, and the run ends with an error that names it.

    Args:
        codec: what is observed.
        captioner: describes each image, for a prior that takes captions; or none.
        key: all that an observation depends on beside the image.
    """

    without_effect: tuple[str, ...] = (*AFTER, "table", "held_out")
    """Options that no observation depends on: a run with others goes on from the same, and learns anew."""

    title: str
    """A word for the progress bar."""

    passes: int = 1
    """Epochs of a run."""

    kept: str = "observations"
    """The folder of observations, under that of results."""

    def __init__(self, codec: C, captioner: Captioner | None, key: bytes) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.observed, self.codec = codec.network, codec, Codec(codec, captioner=captioner)
        self.key = key
        self.names: list[str] = []
        self.failures: dict[str, str] = {}
        self.bars: Bars | None = None
        self.folder: Path | None = None

    @abstractmethod
    def observe(self, codec: C, signal: Tensor, key: str, advance: Advance) -> bytes:
        """Run the codec over a signal ``(channels, height, width)``; the content of the file, with its ``key``."""

    @abstractmethod
    def is_whole(self, file: Path, key: str) -> bool:
        """Whether a file is there that :meth:`observe` made with that key."""

    @abstractmethod
    def learn(self, names: list[str]) -> None:
        """Learn from the files of these images, of all ranks, at least one; write and print what was learnt.

        It is called at the end of an epoch, which goes over all images once, on rank 0.
        """

    def configure_optimizers(self) -> None:
        """No optimizer: nothing is learnt by gradients over batches."""

    def on_train_start(self) -> None:
        self.network.eval()
        self.names, self.failures = [], {}
        self.start_bars(self.title)

    def training_step(self, batch: Photo, batch_idx: int) -> None:
        name = batch["name"]
        assert self.bars is not None
        bar = self.bars.begin(name)
        try:
            if batch["error"]:
                raise ImageError(batch["error"])
            self._observe(batch, bar)
            self.names.append(name)
        except PscxError as error:
            self.failures[name] = str(error) if batch["error"] else f"'{name}': {error}"
        finally:
            bar.end()

    def _observe(self, photo: Photo, bar: Bar) -> None:
        """Observe a photograph, unless its observation is kept already."""
        pixels = np.ascontiguousarray(photo["pixels"].movedim(0, -1).cpu().numpy())
        caption = self.codec.caption_of(pixels, photo["source"])
        facts = [self.key, np.array(pixels.shape, "<i8").tobytes(), pixels.tobytes(), caption.encode()]
        key, file = sha256(b"".join(facts)).hexdigest(), self.file_of(photo["name"])
        if not self.is_whole(file, key):
            check_encoding(self.observed, pixels)
            codec = self.observed.conditioned(caption)
            write_whole(file, self.observe(codec, signal_of(codec, pixels), key, bar.advance), force=True)

    def on_train_epoch_end(self) -> None:
        names = sorted(name for part in self._gathered(self.names) for name in part)
        self.names = []
        self.failures = {name: reason for part in self._gathered(self.failures) for name, reason in part.items()}
        if self.trainer.is_global_zero:
            write_left_out(self.root, self.failures)
            if names:
                self.learn([*dict.fromkeys(names)])

    def on_train_end(self) -> None:
        if self.failures:
            self.stop_bars()
            raise left_out(self.failures, "learnt from")

    def teardown(self, stage: str) -> None:
        self.stop_bars()

    @property
    def root(self) -> Path:
        """The folder of results, which is that of rank 0 on all ranks."""
        return self.folder or Path(self.trainer.default_root_dir)

    def file_of(self, name: str) -> Path:
        """The observation file of an image."""
        return self.root / self.kept / f"{name}.npz"

    def seen(self, names: list[str], read: Callable[[Path], T | None]) -> list[T]:
        """The observations of these images, by ``read``.

        Raises :class:`pscx.errors.ImageError` if one is missing, for instance because it is on another machine.
        """
        found = {name: read(self.file_of(name)) for name in names}
        missing = [name for name, content in found.items() if content is None]
        if missing:
            some = ", ".join(missing[:3]) + (", ..." if missing[3:] else "")
            raise ImageError(
                f"'{self.root / self.kept}' lacks {len(missing)} of {len(names)} images ({some}): "
                "trainer.default_root_dir must be a folder that all processes share"
            )
        return [content for content in found.values() if content is not None]

    def start_bars(self, title: str) -> None:
        """Show progress bars over the images of an epoch, on rank 0."""
        alone = self.trainer.is_global_zero and self.trainer.progress_bar_callback is None
        batches = self.trainer.num_training_batches
        self.bars = Bars(title, None if batches == float("inf") else int(batches), visible=alone)
        self.bars.__enter__()

    def stop_bars(self) -> None:
        """Remove the progress bars."""
        if self.bars is not None:
            self.bars.__exit__(None, None, None)
            self.bars = None

    def _gathered(self, own: T) -> list[T]:
        """The values of all ranks: names and error sentences, so text, and sent as objects."""
        if self.trainer.world_size == 1:
            return [own]
        parts = [own for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, own)
        return parts


def arrays_file(key: str, **arrays: NDArray[Any]) -> bytes:
    """The content of an observations file."""
    file = io.BytesIO()
    np.savez(file, key=np.array(key), **arrays)  # type: ignore[arg-type]  # its stub takes a name for an option
    return file.getvalue()


def read_arrays(file: Path, key: str | None, names: Sequence[str]) -> list[NDArray[Any]] | None:
    """What :func:`arrays_file` holds; none where there is no such file, it is damaged or has another key."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
            kept, arrays = str(content["key"]), [content[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, RuntimeError):  # the last: by damaged flags
        return None
    return arrays if key in (None, kept) else None


def codec_key(psc: PSC, facts: object = None) -> bytes:
    """The identity of a codec's loop, without coder and restoration: with the same key images give the same symbols.

    ``facts`` are other values that an observation depends on.
    """
    spec = {key: value for key, value in codec_spec(psc).items() if key not in AFTER}
    loop = [json.dumps(spec, sort_keys=True), psc.parameter, psc.seed, psc.fingerprint().hex()]
    return sha256(json.dumps(loop).encode()).digest() + json.dumps(facts, sort_keys=True).encode()


def check_held_out(every: int | None) -> None:
    """Raise ``ValueError`` if ``held_out`` is less than 2."""
    if every is not None and every < 2:
        raise ValueError(f"held_out must be at least 2, or none, got {every}")


def divided(images: list[T], held_out: int | None) -> tuple[list[T], list[T]]:
    """The images to learn from, and every ``held_out``-th image."""
    if held_out is None:
        return images, []
    return [one for i, one in enumerate(images, 1) if i % held_out], images[held_out - 1 :: held_out]


def conclude(
    run: OverImages[Any], file: str, records: list[dict[str, Any]], learnt: int, held_out: int | None, decimals: int = 1
) -> None:
    """Write and show the table of what is saved; with ``learnt`` images, none of which was held out, say so."""
    run.stop_bars()
    write_whole(run.root / file, as_csv(records), force=True)
    show(records, run.root, decimals)
    if learnt:
        print(caution(learnt, held_out))


def caution(images: int, held_out: int | None) -> str:
    """A warning that the savings were measured on the images that were learnt from."""
    if held_out is not None and images >= held_out:
        return (
            "what is saved is of the images that were learnt from, which flatters: nothing was measured on those held "
            "out; use more images or smaller steps"
        )
    remedy = "set held_out" if held_out is None else f"give at least {held_out}: one in {held_out} is held out"
    return f"what is saved is of the {images} images that were learnt from, which flatters: none was held out; {remedy}"


def show(records: list[dict[str, Any]], root: Path, decimals: int = 1) -> None:
    """Print figures as a table on stdout: the first column is text, the others are numbers or none."""
    head, *others = records[0]
    grid = Grid(head, *(Column(name.replace("_", " "), justify="right") for name in others), title=str(root))
    for record in records:
        grid.add_row(
            record[head], *("-" if record[name] is None else f"{record[name]:.{decimals}f}" for name in others)
        )
    Console().print(grid)
