"""Bits of the first segment of PSC's streams, which is coded before any sample is drawn, a block of pixels.

    python benchmarks/first_segment.py FOLDER [--recipes fast default] [--steps 1.4 0.6 0.3]

Each whole image is encoded with one iteration, so that its payload is the first segment with its checksum. The size of
a block is that of the row rule. No denoiser is evaluated.
"""

from __future__ import annotations

import argparse
import json
from math import ceil
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import pscx
from pscx.ablation.report import markdown
from pscx.api import Codec
from pscx.codecs import PSC
from pscx.data.files import image_files
from pscx.format.container import unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of images")
    parser.add_argument("--recipes", nargs="+", default=["fast", "default"])
    parser.add_argument("--steps", type=float, nargs="+", default=[1.4, 0.6, 0.3], metavar="STEP")
    options = parser.parse_args()
    files = image_files(options.folder, "FOLDER")
    lines = []
    for recipe in options.recipes:
        for step in options.steps:
            codec = of_one_iteration(recipe, step)
            bits = [bits_a_block(codec, file) for file in files]
            lines.append(
                [recipe, f"{step:g}", str(len(bits)), f"{fmean(bits):.2f}", f"{min(bits):.2f}", f"{max(bits):.2f}"]
            )
    print(markdown(["recipe", "step", "images", "bits a block", "least", "most"], lines))


def of_one_iteration(recipe: str, step: float) -> Codec:
    """A recipe of PSC whose loop ends after the first segment."""
    config = {"recipe": recipe, "model": {"codec": {"iterations": 1, "quantizer": {"step": step}}}}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "one.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        return pscx.load_codec(file)


def bits_a_block(codec: Codec, file: Path) -> float:
    """Bits of the payload over the blocks that cover an image."""
    psc, pixels = codec.signal_codec, pscx.read_image(file)
    assert isinstance(psc, PSC)
    height, width = pixels.shape[:2]
    blocks: int = ceil(height / psc.rows.stride) * ceil(width / psc.rows.stride)
    return 8 * len(unpack(codec.compress(pixels))[1]) / blocks


if __name__ == "__main__":
    main()
