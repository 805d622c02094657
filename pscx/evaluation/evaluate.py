"""Rate and distortion of a codec over a folder of images."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from pscx.api import Codec, Pixels
from pscx.captioners import Captioner
from pscx.codecs import SignalCodec
from pscx.compression.restoring import Choice
from pscx.data.base import Photo
from pscx.evaluation.coding import Coding
from pscx.evaluation.log import Log
from pscx.evaluation.measuring import Measuring, default_metrics
from pscx.evaluation.progress import Shown
from pscx.evaluation.ranks import check_alike, check_ranks, ranks_per_image, states_of
from pscx.evaluation.stage import Stage
from pscx.evaluation.tables import left_out, logged, show, summary, write_left_out, write_tables
from pscx.execution.sharding import ALONE, spread_over
from pscx.format.limits import UNBOUNDED
from pscx.metrics import Metric
from pscx.rate_control import Target
from pscx.restorations import Restoration


class Evaluate(LightningModule):
    """Compress and restore images with a codec, write the results and measure them.

    Under the trainer's ``default_root_dir`` come ``streams/NAME.pscx``, ``reconstructions/NAME.png`` (and
    ``NAME-1.png``, ... for further restorations), ``images.csv`` with a record of each image, ``summary.csv`` with the
    means and ``metrics.json`` with the metrics' options and weights. The means are logged (``trainer.test()`` returns
    them); the trainer's loggers get records too, and pictures: see :class:`pscx.evaluation.log.Log`. Metrics compare
    the original with the first restoration; bpp counts every byte of the stream. ``measurements`` counts measured
    transform vectors, ``encodings`` the encodings for a target, ``evaluations`` the encoder's denoiser evaluations
    (NFE) in all encodings; ``network_share`` is their share of the encoder's time.

    An image's record is kept in ``records/NAME.json`` as soon as it is done. A run that is started again takes from
    there what the same codec made of the same image; metrics that it lacks are measured on the kept reconstruction. An
    image with an error of its own (it cannot be read, its stream misses the target, its results cannot be written) is
    left out of the tables and named in ``left_out.csv``, and the run ends with an error that names it.

    Args:
        codec: compresses and restores.
        restorations: different restorations of an image that are written, at least 1.
        restoration: makes the pictures in place of the codec's own, or none; it changes no stream.
        perception: chooses it for a codec that is a recipe, from 0 (least error) to 1 (most realistic); or none.
        simulate: restore from the encoder's own measurements, which are those that its stream decodes to; then the
            decoder's time is taken to be that of the one loop and of the restorations. Otherwise decode the stream.
        caption: describes each image, for a prior that takes captions; or none.
        ranks_per_image: processes that share the samples of an image; it must divide the world size. ``auto`` is 1
            where there are at least as many images as processes, else as many as leave none without an image. Streams
            and figures do not depend on it, nor on the number of processes, except for seconds.
        target: rate-control objective of each stream, reached by the quantizer's parameter; or none.
        metrics: how far reconstructions are from originals, each of an image or of the whole set; by default
            ``[psnr, ssim, ms_ssim]``.
        logged_pictures: for at most this many images the loggers get the original, the reconstruction and the first
            rows of the block in the middle, at least 0; where several processes take images, of the first one's.
    """

    references = ("elata2025psc",)

    without_effect = ("ranks_per_image", "logged_pictures", "metrics")
    """Options that change no stream and no picture: a run with others goes on in the same folder."""

    def __init__(
        self,
        codec: SignalCodec,
        restorations: int = 1,
        restoration: Restoration | None = None,
        perception: float | None = None,
        simulate: bool = True,
        caption: Captioner | None = None,
        ranks_per_image: int | Literal["auto"] = "auto",
        target: Target | None = None,
        metrics: list[Metric] | None = None,
        logged_pictures: int = 8,
    ) -> None:
        super().__init__()
        _check_counts(restorations, logged_pictures)
        check_ranks(ranks_per_image)
        self.network = codec.network  # Lightning moves it to its device
        self.codec = Codec(codec, captioner=caption, target=target, limits=UNBOUNDED)
        self.coding = Coding(self.codec, restorations, simulate, Choice(restoration, perception).of_codec(codec))
        self.measuring = Measuring(default_metrics() if metrics is None else metrics)
        self.ranks_per_image, self.logged_pictures = ranks_per_image, logged_pictures
        self.spread = ALONE
        self.stage: Stage | None = None
        self.folder: Path | None = None

    def setup(self, stage: str) -> None:
        """Find the rank of this process among those that share an image.

        Raises ``ConfigError`` if the world size does not fit, or if ranks see different images.
        """
        photos = getattr(getattr(self.trainer, "datamodule", None), "photos", None)
        world = self.trainer.world_size
        check_alike(getattr(photos, "names", None), world)
        size = ranks_per_image(self.ranks_per_image, world, len(photos) if isinstance(photos, Sized) else None)
        self.spread = self.codec.signal_codec.spread = spread_over(world, self.trainer.global_rank, size)

    @property
    def image_share(self) -> tuple[int, int]:
        """The number of shares of the images, and the share of this process."""
        return self.trainer.world_size // self.spread.size, self.trainer.global_rank // self.spread.size

    def on_test_start(self) -> None:
        self.measuring.start()
        logs = self.trainer.is_global_zero and self.trainer.loggers
        log = Log(self.trainer.loggers, self.logged_pictures, self.measuring.measures) if logs else None
        self.stage = self._begun("test", self.measuring, log)

    def on_predict_start(self) -> None:
        self.stage = self._begun("predict")

    def test_step(self, batch: Photo | list[Photo], batch_idx: int) -> None:
        assert self.stage is not None
        self.stage.all_done(_photos(batch))

    def predict_step(self, batch: Photo | list[Photo], batch_idx: int) -> Tensor | list[Tensor]:
        """The first restoration, ``(3, height, width)`` uint8, empty for a file that is left out; of each of a list.

        Streams and restorations are written as in ``test``.
        """
        assert self.stage is not None
        photos = _photos(batch)
        shown = [_shown(photo, done) for photo, done in zip(photos, self.stage.all_done(photos), strict=True)]
        return shown if isinstance(batch, list) else shown[0]

    def on_test_epoch_end(self) -> None:
        """Write the tables over all ranks, and log the means."""
        assert self.stage is not None
        records = sorted(self.stage.gathered(self.stage.records), key=lambda record: str(record["name"]))
        states = states_of(self.measuring.state.state(), self.trainer.world_size)
        own = self.measuring.of_set(states) if self.trainer.is_global_zero and records else {}
        means = {**summary(records), **self.trainer.strategy.broadcast(own), "left_out": len(self.stage.all_failures())}
        if self.trainer.is_global_zero:
            write_tables(self.root, records, means, self.measuring.facts)
            self.stage.shown.stop()
            if records and self.stage.log is not None:
                self.stage.log.end(records)
            if records:
                show(means, self.root)
        world = self.trainer.world_size  # all processes have the same means, which their maximum keeps to the last bit
        self.log_dict(logged(means, self.device), reduce_fx="max", sync_dist=world > 1)

    def on_test_end(self) -> None:
        """Raises ``LeftOutError`` where images were left out, now that the means are logged."""
        self._end()

    def on_predict_epoch_end(self) -> None:
        self._end()

    def _end(self) -> None:
        """One error for all images that were left out, if there are any."""
        assert self.stage is not None
        self.stage.shown.stop()
        failures = self.stage.all_failures()
        if self.trainer.is_global_zero:
            write_left_out(self.root, failures)
        if failures:
            raise left_out(failures, "coded")

    def teardown(self, stage: str) -> None:
        if self.stage is not None:
            self.stage.shown.stop()

    @property
    def root(self) -> Path:
        """The folder of results, which is that of rank 0 on all ranks."""
        return self.folder or Path(self.trainer.default_root_dir)

    def _begun(self, name: str, measuring: Measuring | None = None, log: Log | None = None) -> Stage:
        shown = Shown(self.trainer, name, {} if measuring is None else measuring.measures)
        return Stage(self.coding, self.spread, self.trainer.world_size, self.root, shown, measuring, log)


def _check_counts(restorations: int, logged_pictures: int) -> None:
    if restorations < 1:
        raise ValueError(f"restorations must be at least 1, got {restorations}")
    if logged_pictures < 0:
        raise ValueError(f"logged_pictures must be at least 0, got {logged_pictures}")


def _photos(batch: Photo | list[Photo]) -> list[Photo]:
    return batch if isinstance(batch, list) else [batch]


def _shown(photo: Photo, picture: Pixels | None) -> Tensor:
    return photo["pixels"][:, :0, :0] if picture is None else torch.from_numpy(picture).movedim(-1, 0)
