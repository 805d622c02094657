"""How far from the true posterior is what a sampler draws, on a Gaussian prior and without sampling noise?

    python benchmarks/samplers_on_gaussians.py -o runs/samplers_on_gaussians [--spacing linear] [--eta 0 0.5 0.85 1]

Under a Gaussian prior a linear sampler's output is normal; the recursions of ``tests/recursions.py`` give its mean and
covariance, and the posterior is closed form. An image of 6x6 pixels of the prior ``gaussian`` with its default options,
27 of its 108 numbers measured by a quantizer of step 0.3: along the principal axes of the prior, which is close to what
a codec measures, and along random directions. Writes ``distances.csv``, and ``distances.svg`` and ``distances.png``
with the extra ``plots``. Prints one line for each sampler: its 2-Wasserstein distance in units of the posterior's own
standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from oracles import Normal, posterior, visited, wasserstein  # found through the line above
from recursions import Case, ddrm, dps, nested, pigdm

from pscx.priors import Gaussian

SIDE, COUNT, STEP = 6, 27, 0.3
STEPS = (5, 10, 20, 50, 100, 200, 400)
INNER = 10
SCALE = 0.15
Row = dict[str, Any]
Run = Callable[[Case, list[float]], Normal]


def cases(seed: int) -> dict[str, Case]:
    """What is known of one image of the prior through both kinds of rows."""
    prior, generator = Gaussian(), torch.Generator().manual_seed(seed)
    covariance = prior.covariance(SIDE, SIDE)
    kinds = {
        "principal axes": torch.linalg.eigh(covariance).eigenvectors.T.flip(0)[:COUNT],
        "random directions": torch.linalg.qr(_normal(len(covariance), COUNT, generator=generator)).Q.T,
    }
    image = prior.draw(SIDE, SIDE, generator).flatten()
    variances = torch.full((COUNT,), STEP**2 / 12, dtype=torch.float64)
    noise = variances.sqrt() * _normal(COUNT, generator=generator)
    return {kind: Case(covariance, prior.levels, rows, rows @ image + noise, variances) for kind, rows in kinds.items()}


def samplers(etas: list[float], spacing: str) -> dict[str, Run]:
    """Every sampler whose output is normal, by its options."""
    return {
        **{f"ddrm, eta {eta:g}": partial(ddrm, eta=eta) for eta in etas},
        "ddrm, eta 1, not noise-aware": partial(ddrm, eta=1.0, noise_aware=False),
        f"nested, {INNER} inner steps": partial(nested, inner_steps=INNER, spacing=spacing),
        "pigdm, paper": partial(pigdm, eta=1.0, weighting="paper"),
        "pigdm, score": partial(pigdm, eta=1.0, weighting="score"),
        f"dps, scale {SCALE:g}, not normalised": partial(dps, scale=SCALE, eta=1.0),
    }


def measure(etas: list[float], start: float, stop: float, spacing: str, seed: int) -> Iterator[Row]:
    """Every sampler at every number of steps, on both kinds of rows."""
    for kind, case in cases(seed).items():
        target = posterior(case.covariance, case.rows, case.values, case.variances)
        total = target.covariance.trace()
        for name, run in samplers(etas, spacing).items():
            for steps in STEPS:
                found = run(case, visited(case.grid, start, stop, steps, spacing))
                yield {
                    "rows": kind,
                    "sampler": name,
                    "steps": steps,
                    "distance": wasserstein(found, target) / float(total.sqrt()),
                    "mean_error": float((found.mean - target.mean).norm() / total.sqrt()),
                    "variance_ratio": float(found.covariance.trace() / total),
                }


def plot(points: list[Row], folder: Path) -> None:
    """Distance against steps, one panel for each kind of rows."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "samplers_on_gaussians", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout="constrained")
    for axis, kind in zip(axes, dict.fromkeys(p["rows"] for p in points), strict=True):
        for name in dict.fromkeys(p["sampler"] for p in points):
            line = [p for p in points if p["rows"] == kind and p["sampler"] == name]
            style = {"ddrm": "-", "nest": "--", "pigd": "-.", "dps,": ":"}[name[:4]]
            axis.plot([p["steps"] for p in line], [p["distance"] for p in line], style, marker=".", label=name)
        axis.set(xscale="log", yscale="log", xlabel="steps", title=f"rows along {kind}", ylim=(0.05, 6))
        axis.set_xticks(STEPS, list(map(str, STEPS)))
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("distance to the posterior")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"distances.{suffix}", metadata={"Date": None} if suffix == "svg" else None)


def report(points: list[Row]) -> None:
    """One line for each sampler on each kind of rows, as a table of Markdown."""
    for kind in dict.fromkeys(p["rows"] for p in points):
        print(f"\n| rows along {kind} | " + " | ".join(map(str, STEPS)) + f" | mean, variance at {STEPS[-1]} |")
        print("|---" * (len(STEPS) + 2) + "|")
        for name in dict.fromkeys(p["sampler"] for p in points):
            line = [p for p in points if p["rows"] == kind and p["sampler"] == name]
            last = f"{line[-1]['mean_error']:.2f}, {line[-1]['variance_ratio']:.2f}"
            print(f"| {name} | " + " | ".join(f"{p['distance']:.2f}" for p in line) + f" | {last} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/samplers_on_gaussians"))
    parser.add_argument("--eta", type=float, nargs="+", default=[0.0, 0.5, 0.85, 1.0], help="of ddrm")
    parser.add_argument("--start", type=float, default=20.0, help="noise level of the first step")
    parser.add_argument("--stop", type=float, default=0.0, help="noise level of the last step, or below it")
    parser.add_argument("--spacing", choices=["log", "linear"], default="log")
    parser.add_argument("--seed", type=int, default=0, help="of the image and the random directions")
    options = parser.parse_args()
    points = list(measure(options.eta, options.start, options.stop, options.spacing, options.seed))
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "distances.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(points[0]))
        writer.writeheader()
        writer.writerows(points)
    report(points)
    plot(points, options.output)


def _normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


if __name__ == "__main__":
    main()
