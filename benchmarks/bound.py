"""How close to the rate-distortion function are row rules and quantizers, on Gaussian images?

    python benchmarks/bound.py

Ideal bits over the rate-distortion function at the same error, as ``tests/test_rate.py`` computes them. First the rules
of dense rows: images of 3x16x16 of the prior ``gaussian``, exact draws of the posterior as samples and an exact final
mean, quantizer ``uniform``. Then the recipes' quantizer and ``uniform``, with the exact rows in one segment.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import test_rate as gaussian  # found through the line above
from test_rate import PRIOR, Cost, ExactDraws, ExactMean, ExactRows, cost

from pscx.ablation.report import markdown
from pscx.quantizers import Uniform
from pscx.rows import PCA, RowRule, Tweedie
from pscx.samplers import Sampler

SIDE, ROWS = 16, 4
SETTINGS = ((0.6, 16), (0.3, 30))  # step of the quantizer, iterations
WHOLE = ((24, 0.75), (20, 0.5), (20, 0.4), (20, 0.25))  # side, step of the quantizer: 26 to 33 dB
MANY = 12  # images


def cells() -> dict[tuple[str, str], tuple[RowRule, Sampler, int, int]]:
    """By what the table calls them: rows, samples and their number, rows an iteration."""
    covariance = PRIOR.covariance(SIDE, SIDE)
    draws, mean = ExactDraws(covariance), ExactMean(covariance)
    return {
        ("`pca`", "4 (3 rows, 4/3 as many iterations)"): (PCA(3), draws, 4, 3),
        ("`pca`", "16"): (PCA(ROWS), draws, 16, ROWS),
        ("`tweedie`", "4"): (Tweedie(ROWS), draws, 4, ROWS),
        ("`tweedie`", "the exact mean predicts"): (Tweedie(ROWS), mean, 1, ROWS),
        ("the exact eigenvectors", "the exact mean predicts"): (ExactRows(covariance, ROWS), mean, 1, ROWS),
    }


def shown(found: Cost) -> str:
    return f"{found.ideal:.2f} at {found.psnr:.1f} dB"


def quantizers() -> str:
    """A table of both quantizers, all rows in one segment."""
    lines = []
    for side, step in WHOLE:
        covariance = PRIOR.covariance(side, side)
        rows, mean = ExactRows(covariance, 3 * side * side), ExactMean(covariance)
        found = [cost(side, kind(step), rows, mean, images=MANY) for kind in (gaussian.trellis, Uniform)]
        lines.append([f"3x{side}x{side}", f"{step:g}", *map(shown, found), *(f"{one.payload:.2f}" for one in found)])
    names = ("`trellis`", "`uniform`")
    return markdown(["image", "step", *names, *(f"{name}, payload" for name in names)], lines)


def main() -> None:
    lines = []
    for (rule, samples), (rows, sampler, count, each) in cells().items():
        counts = [round(iterations * ROWS / each) for _, iterations in SETTINGS]
        found = [
            cost(SIDE, Uniform(step), rows, sampler, samples=count, iterations=iterations)
            for (step, _), iterations in zip(SETTINGS, counts, strict=True)
        ]
        lines.append([rule, samples, *map(shown, found)])
    head = [f"step {step}, {ROWS} rows an iteration, {iterations} iterations" for step, iterations in SETTINGS]
    print(f"{gaussian.IMAGES} images\n\n{markdown(['rows', 'samples', *head], lines)}")
    print(f"\n{MANY} images, the exact eigenvectors in one segment, the exact mean predicts\n\n{quantizers()}")


if __name__ == "__main__":
    main()
