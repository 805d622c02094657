"""How well does a prior denoise photographs? PSNR over the noise, which needs no codec.

    python benchmarks/denoising.py FOLDER [--grey 15 25 50] [--levels 0.02 0.05 0.1] [--crop 128] [--limit N] [--float]

Each whole image of FOLDER, or its central square of the side ``--crop``, gets Gaussian noise and is denoised once, by
the network in exact arithmetic or, with ``--float``, in floating point. Nothing is clipped or rounded. ``--grey`` gives
standard deviations in grey levels of 255, ``--levels`` those of an image in [-1, 1]. Prints PSNR in dB: the mean of
that of the images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

import pscx
from pscx.ablation.report import markdown
from pscx.images import to_tensor
from pscx.priors import DDPM

sys.path.append(str(Path(__file__).parent))

from rate_distortion import central, images  # found through the line above

GREY = 127.5  # grey levels of one unit of a signal


@torch.no_grad()
def denoised(prior: DDPM, image: Tensor, level: float, seed: int) -> float:
    """PSNR in dB of an image ``(1, 3, height, width)`` in [-1, 1] after noise and denoising."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=image.dtype)
    height, width = image.shape[-2:]
    down, right = -height % prior.stride, -width % prior.stride
    noisy = pad(image + level * noise, (0, right, 0, down), "reflect")
    error = prior.denoise(noisy, level)[..., :height, :width] - image
    return float(10 * torch.log10(4 / error.square().mean()))


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grey", type=float, nargs="*", default=[], metavar="LEVEL", help="noise in grey levels")
    parser.add_argument("--levels", type=float, nargs="*", default=[], help="noise of an image in [-1, 1]")
    parser.add_argument("--crop", type=int, metavar="SIDE", help="of the central square (default: whole images)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images")
    parser.add_argument("--prior", default="embedded", metavar="PATH", help="what the option path of ddpm takes")
    parser.add_argument("--float", action="store_true", help="in floating point")
    options = parser.parse_args(args)
    if not options.grey and not options.levels:
        parser.error("give --grey or --levels")
    try:
        files = images(options.folder, options.limit)
        prior = DDPM(options.prior, exact=not options.float)
    except pscx.PscxError as error:
        parser.error(str(error))
    levels = {f"{grey:g} grey levels": grey / GREY for grey in options.grey}
    levels |= {f"{level:g}": level for level in options.levels}
    found: dict[str, list[float]] = {name: [] for name in levels}
    for seed, file in enumerate(files.values()):
        image = to_tensor(central(pscx.read_image(file), options.crop))
        for name, level in levels.items():
            found[name].append(denoised(prior, image, level, seed))
    means = [f"{sum(values) / len(values):.2f}" for values in found.values()]
    part = "whole images" if options.crop is None else f"central {options.crop}x{options.crop}"
    print(f"{len(files)} images, {part}, {'floating point' if options.float else 'exact arithmetic'}\n")
    print(markdown(["noise", *levels], [["PSNR (dB)", *means]]))


if __name__ == "__main__":
    main()
