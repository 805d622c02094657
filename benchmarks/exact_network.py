"""What the exact form of a network costs: denoising error, time and rate beside the same network in floating point.

    python benchmarks/exact_network.py [FOLDER] [--prior PATH] [--side 128] [--images 8] [--rate]

Central crops of the first images of FOLDER (bundled photographs by default) get the same noise at several levels, and
both networks denoise them: how much larger the squared error of the exact one is. Then the processor time of one
evaluation on one thread, the two in turn, the least of several rounds, for the prior and for a ``UNet2DModel`` with
norms, SiLU and attention and random weights. At 64x64 and 256x256 the exact prior takes both of its paths, bytes and
float32, which must give the same bits. With ``--rate`` the default recipe compresses the crops with both at three
steps: BD-rate of the exact one against the other, of payloads, as the header of the one in floating point says more.
Exit code 1 where an error is more than 1.5 % larger, the rate more than 2 %, or bits differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor

import pscx
from pscx.api import Pixels
from pscx.data.files import image_files
from pscx.data.folder import BUNDLED
from pscx.evaluation.bd import bd_rate
from pscx.exact import convolving, exact_on_bytes, make_exact
from pscx.format.container import unpack
from pscx.images import to_tensor
from pscx.metrics import bits_per_pixel, psnr
from pscx.priors import DDPM
from pscx.runtime.allocator import keep_freed_memory

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.5)
STEPS = (0.1, 0.2, 0.4)
ERROR, RATE = 1.5, 2.0  # percent


def crops(folder: Path, count: int, side: int) -> list[Pixels]:
    """The middle of each of the first images that are large enough."""
    found: list[Pixels] = []
    for file in image_files(folder, "FOLDER"):
        pixels = pscx.read_image(file)
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        if min(top, left) >= 0 and len(found) < count:
            found.append(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    if not found:
        raise SystemExit(f"no image in {folder} has {side} pixels a side")
    return found


@torch.no_grad()
def errors(exact: DDPM, plain: DDPM, images: Sequence[Pixels]) -> bool:
    """Print the table of squared errors; whether none is too large."""
    print("| noise | PSNR float | PSNR exact | squared error, exact over float |\n|---|---|---|---|")
    fine = True
    for level in LEVELS:
        squares = []
        for number, image in enumerate(images):
            x = to_tensor(image)
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(number))
            noisy = (x + level * noise).float()
            squares.append([float((prior.denoise(noisy, level) - x).square().mean()) for prior in (plain, exact)])
        plain_square, exact_square = (fmean(column) for column in zip(*squares, strict=True))
        more = 100 * (exact_square / plain_square - 1)
        psnrs = " | ".join(f"{10 * np.log10(4 / square):.3f}" for square in (plain_square, exact_square))
        print(f"| {level:g} | {psnrs} | {more:+.2f} % |", flush=True)
        fine = fine and more <= ERROR
    return fine


def seconds(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Processor time of each call, the least of several rounds in which they take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds + 1):  # the first warms up
        for index, call in enumerate(calls):
            started = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - started)
    return best


@torch.no_grad()
def speeds(exact: DDPM, plain: DDPM, side: int, rounds: int) -> None:
    """Print how many times as long an exact evaluation takes."""
    print("\n| network | ms float | ms exact | ratio |\n|---|---|---|---|")
    for batch, size in ((4, side), (4, 2 * side), (1, side // 2)):
        x = torch.randn(batch, 3, size, size)
        for level, name in ((0.1, "low noise"), (1.0, "high noise")):
            found = seconds([partial(prior.denoise, x, level) for prior in (plain, exact)], rounds)
            _tell(f"the prior, {name}, {batch} of {size}x{size}", found)
    torch.manual_seed(0)
    network = UNet2DModel(
        in_channels=12,
        out_channels=12,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
    )
    network = network.eval().requires_grad_(False)
    other = deepcopy(network)
    make_exact(other)
    network.to(memory_format=torch.channels_last)
    x = torch.randn(2, 12, side // 2, side // 2).contiguous(memory_format=torch.channels_last)
    steps = torch.tensor([100, 100])
    found = seconds([lambda: network(x, steps), lambda: other(x, steps)], rounds)
    _tell(f"UNet2DModel with norms and attention, 2 of {side}x{side} at half the sides", found)


@torch.no_grad()
def paths(exact: DDPM, plain: DDPM, rounds: int) -> bool:
    """Print the time of the path on bytes over those of float32 and of the plain network; whether bits are the same."""
    if not exact_on_bytes(torch.device("cpu")):
        print("\nThis processor has no exact convolutions of bytes: float32 is the only path.")
        return True

    def on_bytes(x: Tensor, level: float) -> Tensor:
        with convolving("integer"):
            return exact.denoise(x, level)

    def in_float32(x: Tensor, level: float) -> Tensor:
        with convolving("float32"):
            return exact.denoise(x, level)

    print("\n| prior | ms plain | ms float32 | ms bytes | bytes / float32 | bytes / plain | same bits |")
    print("|---|---|---|---|---|---|---|")
    fine = True
    for side, times in ((64, 10), (256, 1)):  # small images take more rounds to find a quiet moment
        x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        for level, name in ((0.1, "low noise"), (1.0, "high noise")):
            same = torch.equal(on_bytes(x, level), in_float32(x, level))
            calls = [partial(call, x, level) for call in (plain.denoise, in_float32, on_bytes)]
            found = seconds(calls, rounds * times)
            numbers = " | ".join(f"{1000 * one:.1f}" for one in found)
            ratios = f"{found[2] / found[1]:.2f} | {found[2] / found[0]:.2f}"
            print(f"| {name}, {side}x{side} | {numbers} | {ratios} | {same} |", flush=True)
            fine = fine and same
    return fine


def _tell(name: str, found: Sequence[float]) -> None:
    print(f"| {name} | {1000 * found[0]:.1f} | {1000 * found[1]:.1f} | {found[1] / found[0]:.2f} |", flush=True)


def rate(prior: str, images: Sequence[Pixels]) -> bool:
    """Print the BD-rate of the exact codec against the one in floating point; whether it is small enough."""
    curves: dict[bool, list[tuple[float, float]]] = {}
    for exact in (False, True):
        points = []
        for step in STEPS:
            codec = pscx.load_codec(step=step, prior={"name": "ddpm", "path": prior, "exact": exact})
            done = [codec.simulate(image) for image in images]
            pairs = list(zip(images, done, strict=True))
            bpp = fmean(bits_per_pixel(len(unpack(made.data)[1]), *image.shape[:2]) for image, made in pairs)
            points.append((bpp, fmean(psnr(image, made.pixels) for image, made in pairs)))
            name = "exact" if exact else "float"
            print(f"{name}, step {step:g}: {points[-1][0]:.4f} bpp, {points[-1][1]:.3f} dB", flush=True)
        curves[exact] = points
    more = bd_rate(curves[False], curves[True])
    print(f"BD-rate of exact against float: {more:+.2f} %")
    return more <= RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=BUNDLED, help="images (default: bundled photographs)")
    parser.add_argument("--prior", default="embedded", help="what the option path of the prior ddpm takes")
    parser.add_argument("--side", type=int, default=128, help="of the crops, a multiple of 32")
    parser.add_argument("--images", type=int, default=8, help="at most so many")
    parser.add_argument("--rounds", type=int, default=10, help="of the timing; 0: none")
    parser.add_argument("--rate", action="store_true", help="also compress the crops")
    options = parser.parse_args()
    if options.side < 32 or options.side % 32 or options.images < 1 or options.rounds < 0:
        parser.error("--side must be a multiple of 32, --images at least 1 and --rounds at least 0")
    torch.set_num_threads(1)
    keep_freed_memory()  # as the program does
    images = crops(options.folder, options.images, options.side)
    print(f"torch {torch.__version__}, {len(images)} crops of {options.side}x{options.side}\n")
    exact, plain = (DDPM(options.prior, exact=flag) for flag in (True, False))
    fine = errors(exact, plain, images)
    if options.rounds:
        speeds(exact, plain, options.side, options.rounds)
        fine = paths(exact, plain, options.rounds) and fine
    if options.rate:
        print()
        fine = rate(options.prior, images) and fine
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
