"""Learning the typical error of a denoiser, along which codecs of a path place their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codecs import PathCodec
from pscx.codecs.paths.curve import LARGEST, SMALLEST, ErrorCurve, curve_of, levels
from pscx.codecs.paths.levels import start_of
from pscx.errors import ImageError
from pscx.evaluation.tables import as_csv
from pscx.rows.block_transform import channel_axes
from pscx.runtime.files import write_whole
from pscx.signal.distributions import Array
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition
from pscx.signal.transforms import BlockDCT
from pscx.training.codec_file import NAME as CODEC_FILE
from pscx.training.codec_file import codec_file, second_config
from pscx.training.over_images import (
    Advance,
    OverImages,
    arrays_file,
    check_held_out,
    conclude,
    divided,
    read_arrays,
)

BLOCK = 8  # side of the blocks in which bands are told apart
DIGITS = 6  # significant ones of what is learnt


class FitCurve(OverImages[PathCodec]):
    """Learn a denoiser's squared error on typical photographs, at 27 noise levels from 64 down to 2^-7.

    The divergence of a step is proportional to that error (Theis et al. 2022), so ``kl`` and ``least`` place steps by
    it. Noise of each level is added to each photograph once; the noise follows from the codec's seed and the
    photograph. The curve is the mean over photographs. Where it would rise towards lower levels, the larger value
    counts.

    Under the trainer's ``default_root_dir`` come ``curve.yaml``, a config with the curve, to be added to the codec's
    own by a second ``--config``; ``codec.yaml``, the whole codec with it; ``curve.csv`` with the errors before and
    after; ``bands.csv`` with those of each band of an 8x8 DCT; and ``costs.csv`` with the ideal bits per 1000 numbers
    of the codec's steps, were they placed by the curve before and after. What was seen is kept in
    ``observations/NAME.npz`` as soon as an image is done; a run that was interrupted and is started again takes it from
    there.

    Args:
        codec: a codec of a path. Only its prior and its seed matter to the curve.
        caption: describes each image, for a prior that takes captions; or none.
        held_out: every n-th image is measured but not learnt from; ``n`` at least 2, or none to learn from all.
    """

    references = ("theis2022diffc",)

    title = "fit curve"

    without_effect = (
        *("held_out", "curve", "level", "steps", "schedule", "codebook", "group", "flow"),
        *("entries", "atoms", "weight_bits", "chunk", "candidates"),
    )

    def __init__(self, codec: PathCodec, caption: Captioner | None = None, held_out: int | None = 5) -> None:
        check_held_out(held_out)
        super().__init__(codec, caption, codec.fingerprint() + codec.seed.to_bytes(8, "big"))
        self.held_out = held_out

    def observe(self, codec: PathCodec, signal: Tensor, key: str, advance: Advance) -> bytes:
        """The error at each level; the noise is addressed by a checksum of the signal, and by the level."""
        if min(signal.shape[1:]) < BLOCK:
            raise ImageError(f"a signal must be at least {BLOCK} numbers high and wide to fit a curve")
        exact, found = signal.double(), []
        place, noise = crc32(exact.cpu().numpy().tobytes()), Noise(codec.seed)
        for number, level in enumerate(levels()):
            drawn = noise.normal(tuple(exact.shape), iteration=place, sample=0, step=number, device=exact.device)
            with torch.no_grad():
                found.append(codec.prior.denoise((exact + level * drawn)[None], level)[0].double() - exact)
            advance(number + 1, len(levels()))
        errors = torch.stack([error.square().mean() for error in found])
        bands = band_errors(torch.stack(found), channel_axes(codec.prior))
        worst = float(errors.max())
        if not worst <= LARGEST:
            raise ImageError(f"the denoiser diverges: its squared error is {worst:g}, and may be at most {LARGEST:g}")
        return arrays_file(key, errors=errors.cpu().numpy(), bands=bands.cpu().numpy())

    def is_whole(self, file: Path, key: str) -> bool:
        return read_errors(file, key) is not None

    def learn(self, names: list[str]) -> None:
        """Learn, compare and write, over the images of all ranks.

        Raises :class:`pscx.errors.ImageError` where what was seen of one is missing.
        """
        parts = divided(self.seen(names, read_errors), self.held_out)
        curve = falling(np.mean([one.errors for one in parts[0]], 0).tolist())
        after = self.with_curve(list(curve.errors))
        self.write(after, np.mean([one.bands for one in parts[0]], 0))
        records = [costs(name, codec, parts) for name, codec in (("before", self.observed), ("learned", after))]
        measure = "held_out_bits" if parts[1] else "learnt_bits"
        for record in records:
            record["saved_percent"] = 100 * (1 - record[measure] / records[0][measure])
        conclude(self, "costs.csv", records, 0 if parts[1] else len(parts[0]), self.held_out, decimals=2)

    def with_curve(self, errors: list[float]) -> PathCodec:
        """The codec with another curve."""
        return type(self.observed)(**{**self.observed.options(), "curve": errors})

    def write(self, codec: PathCodec, bands: Array) -> None:
        """The codec that was learnt, its curve beside the one before, and the errors by band."""
        write_whole(self.root / "curve.yaml", second_config({"curve": codec.curve}), force=True)
        write_whole(self.root / CODEC_FILE, codec_file(codec), force=True)
        three = zip(levels(), self.observed.typical.errors, codec.typical.errors, strict=True)
        curve = [{"level": rounded(level), "before": before, "learned": error} for level, before, error in three]
        write_whole(self.root / "curve.csv", as_csv(curve), force=True)
        table = [
            {"level": rounded(level), "axis": axis} | {f"band_{band}": rounded(error) for band, error in enumerate(row)}
            for level, axes in zip(levels(), bands.tolist(), strict=True)
            for axis, row in enumerate(axes)
        ]
        write_whole(self.root / "bands.csv", as_csv(table), force=True)


@dataclass(frozen=True)
class Seen:
    """Errors of an image: ``(levels,)``, and by band ``(levels, axes, 8)``."""

    errors: Array
    bands: Array


def read_errors(file: Path, key: str | None = None) -> Seen | None:
    """The observation of an image; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("errors", "bands"))
    return None if arrays is None else Seen(*arrays)


def band_errors(errors: Tensor, axes: Tensor) -> Tensor:
    """Mean squares of ``(n, channels, height, width)`` by channel axis and band of an 8x8 DCT, ``(n, axes, 8)``.

    Band ``b`` has the coefficients whose larger frequency, of rows and columns, is ``b``. Numbers of the last blocks
    that are not whole are left out.
    """
    count, channels, height, width = errors.shape
    height, width = height // BLOCK * BLOCK, width // BLOCK * BLOCK
    transform = BlockDCT(Partition(channels, height, width, BLOCK), axes.to(errors.device))
    coefficients = transform.forward(errors[:, :, :height, :width])
    squares = coefficients.square().mean(1).view(count, channels, BLOCK, BLOCK)
    place = torch.arange(BLOCK, device=errors.device)
    band = torch.maximum(place[:, None], place)
    return torch.stack([squares[:, :, band == one].mean(2) for one in range(BLOCK)], 2)


def falling(errors: Sequence[float]) -> ErrorCurve:
    """The curve of errors, to six significant digits; each counts as the largest of it and those after it.

    None counts as less than a curve may hold.
    """
    _, *largest = accumulate(reversed(errors), max, initial=SMALLEST)
    return curve_of([rounded(error) for error in reversed(largest)])


def rounded(value: float) -> float:
    """To six significant digits."""
    return float(f"{value:.{DIGITS}g}")


def costs(name: str, codec: PathCodec, parts: Sequence[Sequence[Seen]]) -> dict[str, Any]:
    """A record of the table: ideal bits per 1000 numbers of the codec's steps, on images learnt from and held out."""
    steps = [start_of(codec.schedule, codec.prior, codec.steps), *codec.precisions()]
    means = [
        float(np.mean([falling(one.errors.tolist()).cost(steps) for one in part])) / np.log(2) * 1000 if part else None
        for part in parts
    ]
    return {"curve": name, "learnt_bits": means[0], "held_out_bits": means[1]}
