"""Tuning a codec to a latent prior and a folder of images: statistics, rows and gains, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from math import inf, log10
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codecs import PSC
from pscx.coders import CODERS, Posterior
from pscx.data.base import Photo
from pscx.evaluation.bd import bd_rate
from pscx.rows import ROWS, RowRule
from pscx.rows.block_transform import BlockTransform
from pscx.rows.statistics import learn, moments
from pscx.runtime.files import write_whole
from pscx.signal.distributions import Array
from pscx.training.codec_file import codec_file
from pscx.training.expected_time import said, seconds_of
from pscx.training.fit_rows import likeliest, observed_file, read_observed, watched
from pscx.training.fitting import Edges, Recorder, by_segment, cell_edges, likeliest_posterior
from pscx.training.latent_observations import (
    costs_file,
    edges_file,
    joined,
    moments_file,
    read_costs,
    read_edges,
    read_moments,
)
from pscx.training.over_images import (
    AFTER,
    Advance,
    OverImages,
    check_held_out,
    codec_key,
    conclude,
    divided,
)

PASSES = ("statistics", "rows", "gains", "comparison")
RECIPE = "recipes/fitted.yaml"
LEAST_ERROR = 1e-12


class FitLatent(OverImages[PSC]):
    """Tune a codec to the latents of a prior and to a kind of image, in four passes over the images.

    1. ``statistics``: means of the channels, their principal axes and the variances of block coefficients
       (:class:`pscx.rows.statistics.BlockStatistics`). The denoiser is not asked.
    2. ``rows``: the weights of the row rule ``learned``, as :class:`pscx.training.FitRows` finds them. Each image is
       encoded once.
    3. ``gains``: a gain of the predicted spread for each segment, and the shape of the distribution, for the coder
       ``posterior``. Each image is encoded once more, with the rule that was learnt.
    4. ``comparison``: the images that were held out are encoded and restored at every step, by the codec as it was
       given and as it was fitted.

    Under the trainer's ``default_root_dir`` come ``recipes/fitted.yaml``, the whole codec and a user recipe, and
    ``fit.csv`` with the bits of the images that were held out, before and after. What was seen of an image is kept in
    ``observations/PASS/NAME.npz`` as soon as it is done; a run that was interrupted and is started again takes it from
    there. At the start the expected time is printed, unless the images are a stream, which does not tell their number.

    Args:
        codec: its row rule is ``dct`` or ``learned``, its coder ``posterior``, and it has at least 3 iterations.
        steps: parameters of the quantizer, at least two. In the second and the third pass each image is coded with
            one of them, which its content tells; in the fourth with all.
        caption: describes each image, for a prior that takes captions; or none.
        coefficients: largest number of coefficients drawn in an iteration of an image, at least 1.
        held_out: every n-th image is compared and not learnt from; ``n`` at least 2, or none to learn from all.
    """

    references = ("elata2025psc",)

    title, passes = "fit latent", len(PASSES)

    without_effect = (*AFTER, "held_out", "steps", "coefficients")

    def __init__(
        self,
        codec: PSC,
        steps: list[float],
        caption: Captioner | None = None,
        coefficients: int = 1500,
        held_out: int | None = 5,
    ) -> None:
        if not isinstance(codec.rows, BlockTransform):
            raise ValueError(f"rows must be dct or learned to fit a codec, got {ROWS.name_of(type(codec.rows))}")
        if not isinstance(codec.coder, Posterior):
            raise ValueError(f"coder must be posterior to fit a codec, got {CODERS.name_of(type(codec.coder))}")
        if codec.iterations < 3:
            raise ValueError(f"iterations must be at least 3 to fit a codec, got {codec.iterations}")
        if coefficients < 1:
            raise ValueError(f"coefficients must be at least 1, got {coefficients}")
        if len({*steps}) < 2:
            raise ValueError(f"steps must be at least two different numbers, got {steps}")
        check_held_out(held_out)
        for step in steps:
            codec.with_parameter(step)  # raises where it is not allowed
        super().__init__(codec, caption, b"")
        self.given, self.fitted, self.adapt = codec, codec, codec.coder.adapt
        self.steps, self.coefficients, self.held_out = steps, coefficients, held_out
        self.compared: list[str] | None = None
        self.told = False

    @property
    def pass_(self) -> str:
        """The pass that is being made."""
        return PASSES[min(self.current_epoch, len(PASSES) - 1)]

    def on_train_epoch_start(self) -> None:
        """Take over what rank 0 learnt, and begin a pass."""
        learnt = (self.fitted.rows, self.fitted.coder, self.compared)
        rows, coder, self.compared = self.trainer.strategy.broadcast(learnt)
        self.fitted = fitted(self.given, rows=rows, coder=coder)
        self.observed = self.fitted
        loop = codec_key(self.fitted, [self.pass_, self.steps, self.coefficients])
        coders = [CODERS.spec(codec.coder) for codec in (self.given, self.fitted)]
        self.key = loop if self.pass_ != "comparison" else loop + codec_key(self.given) + repr(coders).encode()
        self.kept = f"observations/{self.pass_}"
        self.stop_bars()
        self.start_bars(f"{self.title}: {self.pass_}")

    def on_train_batch_start(self, batch: Photo, batch_idx: int) -> None:
        """Say how long the run will take, before the first image is looked at."""
        if self.told or batch["error"]:
            return
        self.told, batches = True, self.trainer.num_training_batches
        if self.trainer.is_global_zero and batches != inf:  # a stream does not know how many images it has
            images = int(batches) * self.trainer.world_size
            kept = {name: len([*(self.root / "observations" / name).glob("*.npz")]) for name in PASSES}
            self.stop_bars()
            share = evaluations_left(self.given, len(self.steps), images, self.held_out, kept)
            print(said(images, share // self.trainer.world_size, seconds_of(self.given, batch)), flush=True)
            self.start_bars(f"{self.title}: {self.pass_}")

    def observe(self, codec: PSC, signal: Tensor, key: str, advance: Advance) -> bytes:
        """What one pass sees of an image."""
        if self.pass_ == "statistics":
            return moments_file(moments(signal, self.rule.block), key)
        step = self.steps[int(key, 16) % len(self.steps)]
        if self.pass_ == "rows":
            psc = codec.with_parameter(step)
            return observed_file(watched(psc, self.rule, signal, self.coefficients, advance), key)
        if self.pass_ == "gains":
            return edges_file(edges_of(codec.with_parameter(step), signal, advance), key)
        before = fitted(codec, rows=self.given.rows, coder=self.given.coder)
        return costs_file(*costs([before, codec], self.steps, signal, advance), key)

    @property
    def rule(self) -> BlockTransform:
        """The row rule as far as it was fitted."""
        assert isinstance(self.fitted.rows, BlockTransform)
        return self.fitted.rows

    def is_whole(self, file: Path, key: str) -> bool:
        """Whether a file of this pass is there; one that is not compared is not missed."""
        if self.pass_ == "comparison":
            unwanted = self.compared is not None and file.stem not in self.compared
            return unwanted or read_costs(file, key) is not None
        readers = {"statistics": read_moments, "rows": read_observed, "gains": read_edges}
        return readers[self.pass_](file, key) is not None

    def learn(self, names: list[str]) -> None:
        """What a pass teaches.

        Raises :class:`pscx.errors.ImageError` where what was seen of an image is missing, or is too little.
        """
        if self.pass_ == "comparison":
            self.finish(names)
            return
        chosen, others = divided(names, self.held_out)
        self.compared = others or names
        if self.pass_ == "statistics":
            statistics = learn(self.seen(chosen, read_moments), self.rule.block).numbers()
            self.fitted = fitted(self.fitted, rows=with_statistics(self.rule, statistics))
        elif self.pass_ == "rows":
            images = self.seen(chosen, read_observed)
            seen = [one for image in images for one in image.rows if len(one.residual)]
            means = [one for image in images for one in image.means]
            self.fitted = fitted(self.fitted, rows=likeliest(self.rule, seen, means))
        else:
            coder = likeliest_posterior(joined(self.seen(chosen, read_edges)), self.adapt)
            self.fitted = fitted(self.fitted, coder=coder)

    def finish(self, names: list[str]) -> None:
        """Write the recipe, and show what it saves."""
        parts = {"rows": ROWS.spec(self.fitted.rows), "coder": CODERS.spec(self.fitted.coder)}
        write_whole(self.root / RECIPE, codec_file(self.given, **parts), force=True)
        images = self.seen([name for name in names if name in (self.compared or names)], read_costs)
        if not images:
            return  # all of them have failed, and the run ends with their errors
        records = compared(images, self.steps)
        learnt = len(names) if len(images) == len(names) else 0
        conclude(self, "fit.csv", records, learnt, self.held_out, decimals=2)


def evaluations_left(codec: PSC, steps: int, images: int, held_out: int | None, kept: Mapping[str, int]) -> int:
    """Evaluations of the denoiser in all passes over so many images, at most, without those ``kept`` of each pass."""
    compared = images // held_out if held_out and images >= held_out else images
    once = codec.evaluations(0) * sum(max(images - kept[name], 0) for name in ("rows", "gains"))
    return once + 2 * steps * codec.evaluations(1) * max(compared - kept["comparison"], 0)


def fitted(codec: PSC, **parts: Any) -> PSC:
    """A codec with other rows or another coder."""
    other = copy(codec)
    for name, part in parts.items():
        setattr(other, name, part)
    return other


def with_statistics(rule: BlockTransform, statistics: list[float]) -> RowRule:
    """The rule with other statistics."""
    options = {**ROWS.spec(rule), "statistics": statistics}
    make: Any = ROWS.get(options.pop("name"))
    made: RowRule = make(**options)
    return made


def edges_of(codec: PSC, signal: Tensor, advance: Advance) -> list[Edges]:
    """Edges of the cells of a signal's symbols, by segment."""
    recorder = Recorder(codec.coder)
    fitted(codec, coder=recorder).encode(signal, advance)
    return [cell_edges(codec.quantizer, part) for part in by_segment(recorder.groups)]


def costs(codecs: list[PSC], steps: list[float], signal: Tensor, advance: Advance) -> tuple[Array, Array]:
    """Ideal bits of a signal's payload, and the mean squared error of its restoration, ``(codecs, steps)`` each."""
    bits, errors = np.zeros((2, len(codecs), len(steps)))
    for row, codec in enumerate(codecs):
        for column, step in enumerate(steps):
            outcome = codec.with_parameter(step).encode(signal)[1]
            missed = codec.restore(outcome, tuple(signal.shape)).double() - signal.double()
            bits[row, column], errors[row, column] = sum(outcome.account.segment_bits), float(missed.square().mean())
            advance(row * len(steps) + column + 1, bits.size)
    return bits, errors


def compared(images: list[Any], steps: list[float]) -> list[dict[str, Any]]:
    """Records of the table: total bits and mean latent error of the images at each step, before and after.

    ``saved_percent`` in the last line is the mean over the images of Bjontegaard's difference: bits saved at equal
    error. It is none where the curves of no image overlap.
    """
    records: list[dict[str, Any]] = []
    for place, step in enumerate(steps):
        for row, name in enumerate(("before", "fitted")):
            bits = sum(float(one[row, place, 0]) for one in images)
            error = sum(float(one[row, place, 1]) for one in images) / len(images)
            quality = -10 * log10(max(error, LEAST_ERROR))
            figures = {"bits": bits, "decibel": quality, "saved_percent": None}
            records.append({"codec": f"{name}, step {step:g}", **figures})
    saved = []
    for one in images:
        before, after = ([(bits, -10 * log10(max(error, LEAST_ERROR))) for bits, error in row] for row in one.tolist())
        try:
            saved.append(-bd_rate(before, after))
        except ValueError:  # the curves have no quality in common
            continue
    mean = float(np.mean(saved)) if saved else None
    return [*records, {"codec": "saved at equal error", "bits": None, "decibel": None, "saved_percent": mean}]
