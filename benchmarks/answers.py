"""How far does a denoiser's answer depend on tiles, on the batch it is called in, and on exact rounding?

    python benchmarks/answers.py [--photo astronaut.png]

Tiles: the embedded prior denoises a bundled photograph whole and in two by two tiles, in floating point and exactly;
prints the difference in grey levels, near a cut and farther away. Batch: a small Stable Diffusion with random weights,
in floating point, denoises a signal by itself and in a batch of eight; prints the share of numbers that differ, and by
how much. Finite differences: prints the error of products with the Jacobian, as the row rule ``tweedie`` takes them,
against the derivative of the network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.func import jvp

import pscx
from pscx.ablation.report import markdown
from pscx.data.folder import BUNDLED
from pscx.images import to_tensor
from pscx.priors import DDPM, StableDiffusion
from pscx.priors.tiles import Tiles
from pscx.rows.tweedie import PosteriorCovariance
from pscx.signal.measurements import DenseRows
from pscx.signal.partition import Partition

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from tiny_latent import save_stable_diffusion  # found through the line above

GREY = 127.5  # grey levels in a unit of the signal
TILES = Tiles(limit=96, core=96)
CUT_AT, NEAR = 64, 16  # pixels: where two tiles meet in 128, and what counts as near
NOISE = (0.1, 0.5, 2.0, 10.0)
FINITE = (0.05, 0.5, 1.0, 2.0)  # steps, in standard deviations of the noise
LEVELS = (0.1, 0.3, 1.0)
DIRECTIONS, PASSES = 4, 5


def noise(shape: Sequence[int], seed: int) -> Tensor:
    """White noise, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@torch.no_grad()
def tiles(photo: Tensor, priors: dict[str, DDPM]) -> None:
    """Print the difference between an image denoised whole and in tiles; ``photo`` is ``(1, 3, 128, 128)``."""
    place = torch.arange(photo.shape[-1])
    close = (place - CUT_AT).abs() < NEAR
    near = close[:, None] | close
    lines = []
    for level in NOISE:
        x = photo + level * noise(photo.shape, 0)
        for arithmetic, prior in priors.items():
            whole = prior.denoise(x, level)
            pieces = TILES.denoise(partial(prior.denoise, sigma=level), x, prior.stride)
            far = GREY * (pieces - whole)
            found = rms(far[..., near]), rms(far[..., ~near]), float(far.abs().max())
            lines.append([f"{level:g}", arithmetic, *(f"{one:.3f}" for one in found)])
    print("Two by two tiles against the whole image, in grey levels:\n")
    head = ["noise level", "arithmetic", f"RMS within {NEAR} pixels of a cut", "RMS farther away", "largest"]
    print(markdown(head, lines))


@torch.no_grad()
def batch() -> None:
    """Print how many numbers have other bits in a batch of eight, and how far they are off."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        prior = StableDiffusion(save_stable_diffusion(Path(folder)))
        x = noise((8, 4, 16, 16), 1).float()
        together = prior.denoise(x, 1.0)
        alone = torch.cat([prior.denoise(one, 1.0) for one in x.split(1)])
    others = (together != alone).double().mean()
    print(
        f"\nA small Stable Diffusion, random weights, float32: {100 * others:.0f} % of the numbers have other bits "
        f"in a batch of eight than alone; the largest difference is {float((together - alone).abs().max()):.1e}.\n"
    )


def leading(slope: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """The Jacobian's leading directions ``(DIRECTIONS, size)``, about: subspace iteration from noise."""
    vectors = noise((DIRECTIONS, size), 3)
    for _ in range(PASSES):
        vectors = torch.linalg.qr(slope(vectors).T).Q.T
    return vectors


@torch.no_grad()
def finite_differences(photo: Tensor, priors: dict[str, DDPM]) -> None:
    """Print the error of finite differences in leading directions, relative to the derivative's length."""
    network, (channels, height, width) = priors["floating point"], photo.shape[1:]
    lines = []
    for level in LEVELS:
        x = photo + level * noise(photo.shape, 2)

        def slope(vectors: Tensor, x: Tensor = x, level: float = level) -> Tensor:
            points = x.expand(len(vectors), -1, -1, -1).float()
            moves = vectors.view_as(points).float()
            found: Tensor = jvp(lambda y: network.denoise(y, level), (points,), (moves,))[1]
            return level**2 * found.flatten(1).double()

        vectors = leading(slope, photo[0].numel())
        wanted = slope(vectors)
        for arithmetic, prior in priors.items():
            x0, known = prior.denoise(x, level), DenseRows(Partition(channels, height, width, None))
            errors = []
            for step in FINITE:
                covariance = PosteriorCovariance(prior, known, x, level, x0, 0, step, DIRECTIONS)
                errors.append(100 * float((covariance.denoised(vectors) - wanted).norm() / wanted.norm()))
            lines.append([f"{level:g}", arithmetic, *(f"{error:.1f} %" for error in errors)])
    print(
        f"Jacobian times its {DIRECTIONS} leading directions by finite differences, {height}x{width}, error relative to"
    )
    print("the derivative in floating point, by the step in standard deviations of the noise:\n")
    print(markdown(["noise level", "arithmetic", *(f"step {step:g}" for step in FINITE)], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", default="astronaut.png", choices=sorted(file.name for file in BUNDLED.glob("*.png")))
    options = parser.parse_args()
    torch.set_num_threads(1)
    photo = to_tensor(pscx.read_image(BUNDLED / options.photo)).double()  # (1, 3, 128, 128)
    priors = {"floating point": DDPM(exact=False), "exact": DDPM(exact=True)}
    tiles(photo, priors)
    batch()
    finite_differences(photo[..., :64, :64], priors)


if __name__ == "__main__":
    main()
