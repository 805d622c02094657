"""One process against two, on images and on the samples of each image, one thread a process.

    python benchmarks/scaling.py [--recipe fast] [--side 128] [--images 4]

Runs ``pscx test`` with a recipe on crops of bundled photographs: one process, two that share the images, two that share
each image's samples, of which an even number can be shared evenly. Prints the ratio of their seconds, without the start
of a process, which is measured by itself, and whether streams and tables are the same. Two idle cores are needed:
ratios of a busy machine mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from pscx.data.folder import BUNDLED

TIMES = ("encode_seconds", "decode_seconds", "network_share")
TWO = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
LAYOUTS = {
    "one process": ["--trainer.accelerator", "cpu"],
    "two, images": [*TWO, "--model.ranks_per_image", "1"],
    "two, samples": [*TWO, "--model.ranks_per_image", "2"],
}


def run(recipe: str, images: Path, root: Path, options: list[str]) -> float:
    """Seconds of one evaluation."""
    command = [sys.executable, "-m", "pscx.cli.main", "test", "--recipe", recipe, *options]
    command += ["--data.root", str(images), "--trainer.default_root_dir", str(root)]
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def results(root: Path) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """The table without times, and the streams."""
    with (root / "images.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    return rows, {path.name: path.read_bytes() for path in (root / "streams").iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    photographs = sorted(BUNDLED.glob("*.png"))
    with TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(options.images):
            photograph = Image.open(photographs[number % len(photographs)]).convert("RGB")
            photograph.crop((number, 0, options.side + number, options.side)).save(images / f"{number}.png")
        seconds: dict[str, float] = {}
        first = None
        print("| layout | seconds | start | ratio | same streams and table |\n|---|---|---|---|---|")
        for name, layout in LAYOUTS.items():
            root = Path(folder) / name
            whole = run(options.recipe, images, root, layout)
            start = run(
                options.recipe, images, root, layout
            )  # everything is kept from the first run: only processes start and end
            seconds[name] = whole - start
            first = first or results(root)
            ratio = seconds["one process"] / seconds[name]
            print(f"| {name} | {whole:.1f} | {start:.1f} | {ratio:.2f} | {results(root) == first} |", flush=True)


if __name__ == "__main__":
    main()
