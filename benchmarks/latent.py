"""Latent recipes on one latent model, against the published rows with their own coder, and the pixel codec ``fast``.

    python benchmarks/latent.py MODEL FOLDER -o runs/latent [--crop 128] [--limit 4] [--fitted FITTED.yaml ...]
        [--paper-steps 50] [--paper-iterations 64]

Each image's central square is coded by the latent recipes, user recipes, and by ``paper-latent`` with fewer
iterations and steps than are published. Bits are those of payloads. The paper's rows are restored by the mean of
samples of ``latent-rows``, which has a smaller error than the published restoration, so that rows, quantizers and
coders are compared. A point of the paper's is what its encoder holds after so many iterations; the pictures of the
others are decoded from their streams. The pixel codec ``fast`` has its own prior, and says what the autoencoder costs.

``points.csv`` has a record for each image, codec and setting; a run that was stopped goes on, and a codec whose model
or options have changed is measured again. ``summary.md`` is what is printed: mean bits, latent error, PSNR, ssimulacra2
and haarpsi, evaluations of a round trip, and BD-rates against the paper's rows by the latent error and by PSNR: bits at
equal error.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from math import log10
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pscx
from pscx.ablation.report import markdown
from pscx.codecs import PSC, Segment, SignalCodec
from pscx.codecs.base import Account
from pscx.codecs.pixels import shown, signal_of
from pscx.codecs.psc.loop import Known, Seal
from pscx.evaluation.bd import bd_rate, front
from pscx.evaluation.tables import as_csv
from pscx.exact import ordered_mean
from pscx.format.container import unpack
from pscx.metrics import SSIMULACRA2, HaarPSI, psnr
from pscx.rate_control import Step
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from rate_distortion import central, digest, images  # found through the line above

Pixels = NDArray[np.uint8]
Record = dict[str, str]
FIGURES = ("bits", "latent_db", "psnr", "ssimulacra2", "haarpsi", "evaluations")
STEPS, LEVELS = (0.4, 0.7, 1.2, 2.0), (0.2, 0.35, 0.6, 1.0, 1.7)
PIXEL_STEPS = (1.0, 2.0)
PAPER = "paper rows"


@dataclass(frozen=True)
class Task:
    """A codec at its settings: ``run`` makes records of an image. ``version`` is a digest of the codec."""

    name: str
    version: str
    settings: Sequence[str]
    run: Callable[[Pixels], list[dict[str, Any]]]


def figures(codec: SignalCodec, pixels: Pixels, restored: Tensor, bits: float, evaluations: int) -> dict[str, Any]:
    """The figures of a restored signal."""
    error = float((restored.double() - signal_of(codec, pixels).double()).square().mean())
    picture = shown(codec, restored.float(), *pixels.shape[:2])
    return {
        "bits": round(bits),
        "latent_db": -10 * log10(error),
        "psnr": psnr(pixels, picture),
        "ssimulacra2": SSIMULACRA2().measure(pixels, picture),
        "haarpsi": HaarPSI().measure(pixels, picture),
        "evaluations": evaluations,
    }


def recipe(name: str, steps: Sequence[float], **options: Any) -> Task:
    """A recipe: files at several steps, decoded again."""

    def run(pixels: Pixels) -> list[dict[str, Any]]:
        found, codec = [], pscx.load_codec(name, **options)
        for step in steps:
            done = codec.encode(pixels, target=Step(step))
            header, payload = unpack(done.data)
            psc = codec.signal_codec.with_parameter(header.parameter)
            shape = tuple(signal_of(psc, pixels).shape)
            outcome = psc.decode(payload, shape, arithmetic=header.arithmetic)
            restored = psc.restore(outcome, shape)
            evaluations = done.account.evaluations + outcome.account.evaluations
            found.append(figures(psc, pixels, restored, 8 * len(payload), evaluations))
        return found

    return Task(Path(name).stem, digest(pscx.load_codec(name, **options)), [f"{step:g}" for step in steps], run)


def paper(model: str, steps: int, iterations: int) -> Task:
    """The rows, the quantizer and the coder that are published, after doubling numbers of iterations."""
    counts = [count for count in (8, 16, 32, 64, 128, 256) if count <= iterations]
    options: dict[str, Any] = {"prior": {"path": model}, "sampler": {"steps": steps}, "iterations": iterations + 1}

    def run(pixels: Pixels) -> list[dict[str, Any]]:
        codec = pscx.load_codec("paper-latent", **options).signal_codec
        ours = pscx.load_codec("latent-rows", prior={"path": model}).signal_codec
        assert isinstance(codec, PSC)
        assert isinstance(ours, PSC)
        codec.restoration, codec.restoration_sampler = ours.restoration, ours.final_sampler
        signal, held, rows = signal_of(codec, pixels), dict[int, tuple[Known, int]](), 0

        def watch(_: SignalCodec, segment: Segment) -> None:
            nonlocal rows
            assert isinstance(segment, Seal)
            if segment.segment in counts:
                assert segment.samples is not None
                mean = ordered_mean([segment.samples])
                held[segment.segment] = Known(Account(), segment.segment, deepcopy(segment.before), mean), rows
            rows += len(segment.measured.symbols)

        copy(codec).encode(signal, watch=watch)
        found = []
        for count, (known, so_far) in held.items():
            restored = codec.restore(known, tuple(signal.shape))
            twice = 2 * count * codec.samples * codec.sampler.evaluations
            evaluations = twice + codec.restoration.draws * codec.final_sampler.evaluations
            found.append(figures(codec, pixels, restored, 8 * so_far, evaluations))
        return found

    version = digest(pscx.load_codec("paper-latent", **options))
    return Task(PAPER, version, [f"{count} iterations of {steps} steps" for count in counts], run)


def read(path: Path) -> list[Record]:
    """The records that there are."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(tasks: Sequence[Task], files: Mapping[str, Path], crop: int, path: Path) -> list[Record]:
    """Measure what the table lacks, and write it after each image of a codec."""
    table = read(path)
    for task in tasks:
        for name, file in files.items():
            here = [one for one in table if (one["codec"], one["image"], one["crop"]) == (task.name, name, str(crop))]
            if {one["setting"] for one in here if one.get("version") == task.version} >= {*task.settings}:
                continue
            print(f"{task.name}: {name}", flush=True)
            table = [one for one in table if one not in here]
            records = task.run(central(pscx.read_image(file), crop))
            for setting, record in zip(task.settings, records, strict=True):
                key = {"codec": task.name, "version": task.version, "image": name, "crop": str(crop)}
                found = {figure: f"{record[figure]:.6g}" for figure in FIGURES}
                table.append({**key, "setting": setting, **found})
            write_whole(path, as_csv(table), force=True)
    wanted = {(task.name, name) for task in tasks for name in files}
    return [one for one in table if (one["codec"], one["image"]) in wanted and one["crop"] == str(crop)]


def curves(records: Sequence[Record], figure: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points ``(bits, figure)`` by codec and image, without those that a smaller file beats."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for one in records:
        found.setdefault(one["codec"], {}).setdefault(one["image"], []).append((float(one["bits"]), float(one[figure])))
    return {codec: {image: front(curve) for image, curve in of.items()} for codec, of in found.items()}


def differences(records: Sequence[Record], figure: str) -> list[list[str]]:
    """Mean BD-rates against the paper's rows, and of how many images."""
    by_codec, rows = curves(records, figure), []
    for name, of in by_codec.items():
        found = []
        for image, curve in of.items():
            try:
                found.append(bd_rate(by_codec[PAPER][image], curve))
            except (KeyError, ValueError):  # the curves have no quality in common
                continue
        rows.append([name, f"{fmean(found):+.1f} %" if found else "-", f"{len(found)} of {len(of)}"])
    return rows


def summary(records: Sequence[Record]) -> str:
    """All that is printed."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        groups.setdefault((one["codec"], one["setting"]), []).append(one)
    means = [
        [
            *key,
            *(
                f"{fmean(float(one[figure]) for one in group):.{digits}f}"
                for figure, digits in zip(FIGURES, (0, 2, 2, 1, 3, 0), strict=True)
            ),
        ]
        for key, group in groups.items()
    ]
    parts = [markdown(["codec", "setting", *FIGURES], means)]
    for figure in ("latent_db", "psnr"):
        head = ["codec", f"bits at equal {figure}, against {PAPER}", "images with a common range"]
        parts.append(markdown(head, differences(records, figure)))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a latent model")
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/latent"))
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--fitted", type=Path, nargs="*", default=[], help="user recipes to measure too")
    parser.add_argument("--paper-steps", type=int, default=50)
    parser.add_argument("--paper-iterations", type=int, default=64)
    parser.add_argument("--without", nargs="*", default=[], help="codecs to leave out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior = {"prior": {"path": args.model}}
    for file in args.fitted:
        pscx.load_recipes(file.parent)
    tasks = [
        recipe("latent-fast", LEVELS, **prior),
        recipe("latent", LEVELS, **prior),
        recipe("latent-rows", STEPS, **prior),
        *(recipe(str(file), STEPS, **prior) for file in args.fitted),
        paper(args.model, args.paper_steps, args.paper_iterations),
        recipe("fast", PIXEL_STEPS),
    ]
    chosen = [task for task in tasks if task.name not in args.without]
    records = fill(chosen, images(args.folder, args.limit), args.crop, args.out / "points.csv")
    text = summary(records)
    write_whole(args.out / "summary.md", text.encode(), force=True)
    print(text)


if __name__ == "__main__":
    main()
