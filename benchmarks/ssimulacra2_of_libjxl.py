"""Does the metric `ssimulacra2` agree with libjxl's tool of that name, on photographs at several qualities and sizes?

    python benchmarks/ssimulacra2_of_libjxl.py FOLDER [--tool ssimulacra2] [--qualities 5 20 50 90] [--crops 16 61 128]

The tool comes with libjxl 0.8 or later (Debian 13: the package libjxl-devtools). Each image is compared whole and in
square crops of its upper left corner with what JPEG makes of it. Prints the largest difference for each size, and exit
code 1 where one is over 0.15. The tool computes in float32, and its rounding counts as error: by up to 0.1 at scores
over 80, by up to 0.05 below.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pscx
from pscx.data.files import image_files
from pscx.metrics import SSIMULACRA2

ALLOWED = 0.15

Pixels = NDArray[np.uint8]


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Through JPEG at that quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.array(decoded)


def of_tool(tool: str, original: Pixels, other: Pixels) -> float:
    """What libjxl's tool says."""
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("original.png", "other.png")]
        for file, image in zip(files, (original, other), strict=True):
            Image.fromarray(image).save(file)
        done = subprocess.run([tool, *map(str, files)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def main(args: Sequence[str] | None = None) -> int:
    """Compare, and print a line for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photographs")
    parser.add_argument("--tool", default="ssimulacra2", metavar="PROGRAM", help="libjxl's ssimulacra2")
    parser.add_argument("--qualities", type=int, nargs="+", default=[5, 20, 50, 90], metavar="Q", help="of JPEG")
    parser.add_argument("--crops", type=int, nargs="*", default=[16, 61, 128], metavar="SIDE", help="beside the whole")
    options = parser.parse_args(args)
    try:
        files = image_files(options.folder, "FOLDER")
    except pscx.PscxError as error:
        parser.error(str(error))
    metric, worst = SSIMULACRA2(), 0.0
    for side in (*options.crops, None):
        differences = []
        for file in files:
            image = pscx.read_image(file)
            for quality in options.qualities:
                pair = [np.ascontiguousarray(x[:side, :side]) for x in (image, jpeg(image, quality))]
                differences.append(abs(metric(*pair) - of_tool(options.tool, *pair)))
        worst = max(worst, *differences)
        print(f"{side or 'whole'}: {len(differences)} pairs, largest difference {max(differences):.4f}")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
