"""A run that is killed at random moments and started again, until it ends: is its table that of one left alone?

    python benchmarks/killed_runs.py [--kills 20] [--images 12] [--seed 0]

Runs ``pscx test`` with the closed-form prior on crops of bundled photographs, and sends it SIGKILL after a random time,
as often as ``--kills`` says. Prints how many images were done at each kill. Exit code 1 where the tables or the streams
of the two runs differ, a file is not whole, or a run that was started again fails.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from scaling import results

from pscx.data.folder import BUNDLED


def command(images: Path, root: Path) -> list[str]:
    """An evaluation that takes about a second an image."""
    options = ["--data.root", str(images), "--trainer.default_root_dir", str(root), "--model.codec.iterations", "40"]
    return [sys.executable, "-m", "pscx.cli.main", "test", "--config", "configs/gaussian.yaml", *options]


def timed(images: Path, root: Path) -> float:
    """Seconds of a run that is left alone."""
    started = time.perf_counter()
    subprocess.run(command(images, root), check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    photographs = sorted(BUNDLED.glob("*.png"))
    with TemporaryDirectory() as folder:
        images, alone, killed = (Path(folder) / name for name in ("images", "alone", "killed"))
        images.mkdir()
        for number in range(options.images):
            photograph = Image.open(photographs[number % len(photographs)]).convert("RGB")
            photograph.crop((number, 0, 64 + number, 64)).save(images / f"{number:02}.png")
        whole = timed(images, alone)
        start = timed(images, alone)  # all images are there already
        each = (whole - start) / options.images
        kills = 0
        while kills < options.kills:
            process = subprocess.Popen(command(images, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait = start + draw.random() * 2 * each  # most kills fall into an image or just before the next
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                done = len(list((killed / "records").glob("*.json"))) if (killed / "records").exists() else 0
                print(f"kill {kills} after {wait:.2f} s: {done} of {options.images} images done", flush=True)
                continue
            if process.returncode:
                sys.exit(f"after {kills} kills, a run that was started again ended with exit code {process.returncode}")
            for record in (killed / "records").glob("*.json"):  # it ended: begin anew, for the kills that are left
                record.unlink()
        timed(images, killed)
        same = results(killed) == results(alone)
        print(f"the table and the streams of the killed run are {'' if same else 'NOT '}those of the run left alone")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
