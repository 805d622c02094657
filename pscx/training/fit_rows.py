"""Learning the weights of the row rule ``learned`` from a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codecs import PSC, Segment, SignalCodec
from pscx.codecs.psc.loop import Seal
from pscx.errors import ImageError
from pscx.registry import parameters_of
from pscx.rows import ROWS, Learned
from pscx.rows.block_transform import BlockTransform
from pscx.rows.learned import FEATURES
from pscx.rows.pyramid import FEATURES as MEAN_FEATURES
from pscx.rows.regression import (
    Means,
    Observed,
    fit_means,
    fit_weights,
    mean_bits,
    observe,
    observe_means,
    predicted_by,
)
from pscx.runtime.files import write_whole
from pscx.signal.distributions import Array
from pscx.signal.measurements import Coordinates
from pscx.training.codec_file import NAME as CODEC_FILE
from pscx.training.codec_file import codec_file, second_config
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


class FitRows(OverImages[PSC]):
    """Learn where posterior samples are wrong, by maximum likelihood (:class:`pscx.rows.Learned`).

    A codec with the rows ``dct`` or ``learned`` encodes every image once. In each of its iterations that has samples,
    coefficients are drawn from those four times as many as were measured whose predicted variance is largest: their
    features, and how far the samples' mean was off. Which they are depends on the rule, so weights that were learnt
    from ``dct`` are a little better when learnt again from themselves.

    Where the rule begins with a pyramid of block means, the weights of its variances are learnt from the first segment
    (:class:`pscx.rows.pyramid.Pyramid`).

    Under the trainer's ``default_root_dir`` come ``rows.yaml``, a config with the rule that was learnt, to be added to
    the codec's own by a second ``--config``; ``codec.yaml``, the whole codec with that rule; and ``rows.csv`` with the
    bits that a coefficient would cost, to within a constant, by the predictions before and after. What was seen is kept
    in ``observations/NAME.npz`` as soon as an image is done; a run that was interrupted and is started again takes it
    from there.

    Args:
        codec: its row rule is ``dct`` or ``learned``, and the rule that is learnt has its block and its quotas; it has
            at least 3 iterations, or all iterations with samples are alike.
        caption: describes each image, for a prior that takes captions; or none.
        steps: parameters of the quantizer; each image is coded with one of them, which its content tells. None for the
            quantizer's own throughout.
        coefficients: largest number of coefficients drawn in an iteration of an image, at least 1.
        held_out: every n-th image is measured but not learnt from; ``n`` at least 2, or none to learn from all.
    """

    references = ("elata2025psc",)

    title = "fit rows"

    def __init__(
        self,
        codec: PSC,
        caption: Captioner | None = None,
        steps: list[float] | None = None,
        coefficients: int = 1500,
        held_out: int | None = 5,
    ) -> None:
        rows = codec.rows
        if not isinstance(rows, BlockTransform):
            raise ValueError(f"rows must be dct or learned to fit weights, got {ROWS.name_of(type(rows))}")
        if codec.iterations < 3:
            raise ValueError(f"iterations must be at least 3 to fit weights, got {codec.iterations}")
        if coefficients < 1:
            raise ValueError(f"coefficients must be at least 1, got {coefficients}")
        if steps == []:
            raise ValueError("steps must be none or at least one number, got []")
        check_held_out(held_out)
        for step in steps or []:
            codec.with_parameter(step)  # raises where it is not allowed
        super().__init__(codec, caption, codec_key(codec, [steps, coefficients]))
        self.rows, self.steps, self.coefficients, self.held_out = rows, steps, coefficients, held_out

    def observe(self, codec: PSC, signal: Tensor, key: str, advance: Advance) -> bytes:
        psc = codec
        if self.steps:
            psc = codec.with_parameter(self.steps[int(key, 16) % len(self.steps)])
        return observed_file(watched(psc, self.rows, signal, self.coefficients, advance), key)

    def is_whole(self, file: Path, key: str) -> bool:
        return read_observed(file, key) is not None

    def learn(self, names: list[str]) -> None:
        """Learn, measure and write, over the images of all ranks.

        Raises :class:`pscx.errors.ImageError` where what was seen of one is missing, or nothing was measured.
        """
        images = self.seen(names, read_observed)
        divisions = divided(images, self.held_out)
        parts = [[one for image in part for one in image.rows if len(one.residual)] for part in divisions]
        means = [one for image in divisions[0] for one in image.means]
        learned = likeliest(self.rows, parts[0], means)
        assert learned.weights is not None
        spec = {"rows": ROWS.spec(learned)}
        write_whole(self.root / "rows.yaml", second_config(spec), force=True)
        write_whole(self.root / CODEC_FILE, codec_file(self.observed, **spec), force=True)
        before = [[one.predicted for one in part] for part in parts]
        after = [[predicted_by(one, learned.weights) for one in part] for part in parts]
        table = [compared("before", parts, before), compared("learned", parts, after)]
        measure = "held_out_bits" if parts[1] else "learnt_bits"
        for record in table:
            record["saved_bits"] = table[0][measure] - record[measure]
        conclude(self, "rows.csv", table, 0 if parts[1] else len(images), self.held_out, decimals=3)


MEANS = {
    "means_first": np.zeros(0),
    "means_features": np.zeros((0, MEAN_FEATURES - 1)),
    "means_residual": np.zeros(0),
    "means_rounding": np.zeros(0),
}
"""The arrays of :class:`pscx.rows.regression.Means` in a file, empty."""


def compared(name: str, parts: list[list[Observed]], variances: list[list[Array]]) -> dict[str, Any]:
    """A record of the table: bits of the coefficients that were learnt from and of those that were held out."""
    learnt, held_out = (mean_bits(part, by) if part else None for part, by in zip(parts, variances, strict=True))
    return {"rows": name, "learnt_bits": learnt, "held_out_bits": held_out}


@dataclass(frozen=True)
class Seen:
    """What was seen of an image: its iterations that had samples, and its first segment if that was a pyramid."""

    rows: list[Observed]
    means: list[Means]


def watched(codec: PSC, rule: BlockTransform, signal: Tensor, coefficients: int, advance: Advance) -> Seen:
    """What is seen while a codec with that rule encodes a signal; see :class:`FitRows` for ``coefficients``."""
    exact, spectrum = signal.double(), rule.spectrum(codec.prior)
    found: list[Observed] = []
    means: list[Means] = []

    def watch(_: SignalCodec, seal: Segment) -> None:
        assert isinstance(seal, Seal)
        known, proposal = seal.before, seal.measured.proposal
        assert isinstance(known, Coordinates)
        situation = codec.loop.situation(known, seal.samples, seal.segment, codec.prior)
        if proposal.predictions is not None and rule.first == "pyramid":
            values = known.along(known.split(exact[None])[0], proposal.block, proposal.rows)
            pyramid = rule.pyramid_of(situation, known)
            means.append(observe_means(pyramid, proposal, seal.measured.value, values.cpu()))
        if seal.samples is not None:
            predicted, rows = rule.predicted(situation), len(seal.measured.symbols)
            found.append(observe(situation, spectrum, exact, predicted, rows, coefficients))

    codec.encode(signal, advance, watch=watch)
    return Seen(found, means)


def likeliest(rule: BlockTransform, seen: list[Observed], means: list[Means]) -> Learned:
    """The rule ``learned`` whose weights are the likeliest; all else is as in ``rule``.

    Raises :class:`pscx.errors.ImageError` where there are fewer coefficients than weights.
    """
    options = parameters_of(Learned).keys()
    kept = {name: value for name, value in ROWS.spec(rule).items() if name in options}
    try:
        kept["weights"] = fit_weights(seen)
        if means:
            kept["pyramid"] = fit_means(means)
        return Learned(**kept)
    except ValueError as error:
        raise ImageError(f"{error}; use more images or smaller steps") from error


def observed_file(seen: Seen, key: str) -> bytes:
    """The content of an observations file; numbers are kept in single precision."""
    found = seen.rows
    sizes = np.array([(one.iteration, one.iterations, len(one.residual)) for one in found], np.int64).reshape(-1, 3)
    empty = {"features": np.zeros((0, FEATURES - 1)), "residual": np.zeros(0), "predicted": np.zeros(0)}
    parts = {
        name: np.concatenate([nothing, *(getattr(one, name) for one in found)]).astype(np.float32)
        for name, nothing in empty.items()
    }
    for name, nothing in MEANS.items():
        parts[name] = np.concatenate([nothing, *(getattr(one, name[6:]) for one in seen.means)]).astype(np.float32)
    return arrays_file(key, sizes=sizes, **parts)


def read_observed(file: Path, key: str | None = None) -> Seen | None:
    """What :func:`observed_file` holds; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("sizes", "features", "residual", "predicted", *MEANS))
    if arrays is None:
        return None
    sizes, *parts = arrays
    parts, means = parts[:3], Means(*(part.astype(float) for part in parts[3:]))
    ends = np.cumsum(sizes[:, 2])[:-1]
    pieces = zip(sizes.tolist(), *(np.split(part.astype(float), ends) for part in parts), strict=True)
    rows = [Observed(iteration, iterations, *found) for (iteration, iterations, _), *found in pieces]
    return Seen(rows, [means] if len(means.residual) else [])
