"""Are rates and qualities that were asked for met, on whole files of many photographs?

    python benchmarks/targets.py FOLDER [-o runs/targets] [--recipe default] [--bpp 0.25 0.5 1] [--psnr 24 28 32]

Each image's central 256x256 (``--crop``) is compressed to every target and decompressed from its bytes. A rate is met
by a file of at most the bits asked for, and at least 98 % of them; a PSNR by one within 0.1 dB of it. Prints for each
target how many images met it, the range of what they got, and the mean number of encodings that the search took. Exit
code 1 where a target was missed; one that an image cannot have is counted as refused, with what was said.

Under ``-o`` comes ``targets.csv`` with a record for each image and target; those that are there already are not
measured again, so a run that was stopped goes on. Those of another recipe, or of the same before a change, are left
alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from rich.progress import Progress

import pscx
from pscx.evaluation.tables import as_csv
from pscx.metrics import bits_per_pixel, psnr
from pscx.rate_control import BPP, PSNR, Target, TargetError
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from rate_distortion import Record, central, digest, images, read  # found through the line above

SHORTEST = 0.98  # of a rate that was asked for
CLOSE = 0.1  # dB
KEY = ("image", "crop", "recipe", "version", "target", "value")


def measured(codec: pscx.Codec, file: Path, record: Record) -> Record:
    """What an image got; ``error`` says why it got nothing."""
    pixels = central(pscx.read_image(file), int(record["crop"]))
    value = float(record["value"])
    target: Target = BPP(value) if record["target"] == "bpp" else PSNR(value)
    try:
        done = codec.encode(pixels, target=target)
    except TargetError as error:
        return {**record, "bpp": "", "psnr": "", "encodings": "", "error": str(error)}
    again = pscx.Decompressor().decompress(done.data)
    rate, quality = bits_per_pixel(len(done.data), *pixels.shape[:2]), psnr(pixels, again)
    return {
        **record,
        "bpp": repr(rate),  # in full: met() compares it with what was asked for
        "psnr": repr(quality),
        "encodings": str(done.account.encodings),
        "error": "",
    }


def met(record: Record) -> bool:
    """Whether an image got what was asked for."""
    value = float(record["value"])
    if record["error"]:
        return False
    if record["target"] == "bpp":
        return SHORTEST * value <= float(record["bpp"]) <= value
    return abs(float(record["psnr"]) - value) <= CLOSE


def report(records: Sequence[Record]) -> bool:
    """Print a line for each target; whether none was missed, refusals aside."""
    print("| target | met | refused | from | to | encodings |\n|---|---|---|---|---|---|")
    missed = False
    for kind, value in dict.fromkeys((record["target"], record["value"]) for record in records):
        part = [record for record in records if (record["target"], record["value"]) == (kind, value)]
        done = [record for record in part if not record["error"]]
        hits = sum(map(met, part))
        missed |= hits < len(done)
        got = [float(record[kind]) for record in done]
        ends = (
            f"{min(got):.4f} | {max(got):.4f} | {fmean(int(r['encodings']) for r in done):.1f}" if got else "- | - | -"
        )
        print(f"| {kind} {value} | {hits} of {len(part)} | {len(part) - len(done)} | {ends} |")
    for record in records:
        if record["error"]:
            print(f"\n{record['image']}, {record['target']} {record['value']}: {record['error']}")
    return not missed


def main(args: Sequence[str] | None = None) -> int:
    """Measure what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/targets"))
    parser.add_argument("--recipe", default="default", help="a recipe or a config file")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--limit", type=int, default=None, help="the first N images alone")
    parser.add_argument("--bpp", type=float, nargs="*", default=[0.25, 0.5, 1.0])
    parser.add_argument("--psnr", type=float, nargs="*", default=[24.0, 28.0, 32.0])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    try:
        codec, files = pscx.load_codec(options.recipe), images(options.folder, options.limit)
    except pscx.PscxError as error:
        parser.error(str(error))
    table = options.output / "targets.csv"
    records = read(table, KEY)
    targets = [("bpp", value) for value in options.bpp] + [("psnr", value) for value in options.psnr]
    place = (str(options.crop), options.recipe, digest(codec))
    cells = [(file, (name, *place, kind, f"{value:g}")) for kind, value in targets for name, file in files.items()]
    with Progress() as bar:
        for file, key in bar.track(cells, description="targets"):
            if key not in records:
                records[key] = measured(codec, file, dict(zip(KEY, key, strict=True)))
                write_whole(table, as_csv(list(records.values())), force=True)
    return 0 if report([records[key] for _, key in cells]) else 1


if __name__ == "__main__":
    sys.exit(main())
