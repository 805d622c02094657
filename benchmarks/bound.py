"""How close to the rate-distortion function are the row rules of dense rows, on Gaussian images?

    python benchmarks/bound.py

Images of 3x16x16 of the prior ``gaussian``, exact draws of the posterior as samples and an exact final mean, quantizer
``uniform``: ideal bits over the rate-distortion function at the same error, as ``tests/test_rate.py`` computes them.
Prints a table.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from test_rate import IMAGES, PRIOR, Cost, ExactDraws, ExactMean, ExactRows, cost  # found through the line above

from pscx.ablation.report import markdown
from pscx.quantizers import Uniform
from pscx.rows import PCA, RowRule, Tweedie
from pscx.samplers import Sampler

SIDE, ROWS = 16, 4
SETTINGS = ((0.6, 16), (0.3, 30))  # step of the quantizer, iterations


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
    print(f"{IMAGES} images\n\n{markdown(['rows', 'samples', *head], lines)}")


if __name__ == "__main__":
    main()
