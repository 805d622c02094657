"""Streams whose bytes and pixels are a promise: on every machine, and until the format has another version.

    python tests/golden_streams.py

writes ``tests/golden`` anew, which is to be done where the format or the arithmetic of the default recipe changes on
purpose, and never after a release. In most of them everything comes from integers: the images, and the networks'
weights, which are pscx's own noise times powers of two. Those in ``tests/golden/recipes`` are a photograph under the
recipes and the prior that ship.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import nn

from pscx import Codec, load_codec, read_image
from pscx.codecs.specs import recipe_spec
from pscx.config.recipes import RECIPES
from pscx.data.folder import BUNDLED
from pscx.format.container import unpack
from pscx.networks import ResidualUNet
from pscx.priors.denoiser import PixelDenoiser
from pscx.signal.noise import Noise

Pixels = NDArray[np.uint8]
GOLDEN = Path(__file__).parent / "golden"
FACTS = GOLDEN / "golden.json"
SAMPLER = {"name": "ddrm", "steps": 3, "start": 20.0, "warm_start": 2.0, "stop": 0.05, "spacing": "log"}
ROWS = {"name": "dct", "base": 0.4, "neighbours": 0.7, "floor": 0.2, "evenness": 0.75, "depth": 64}
LEARNED = {"name": "learned", "growth": 1.5, "coarse": 1.0}
PLAIN = {"coder": "posterior", "restoration": {"name": "mean", "samples": 2}}
PAIRED = {**PLAIN, "antithetic": True}
STATISTICS = [  # for blocks of 4: means of the channels, axes, variances by axis and radius
    *(0.125, -0.0625, 0.25),
    *(0.666667, 0.666667, 0.333333, -0.666667, 0.333333, 0.666667, 0.333333, -0.666667, 0.666667),
    *(4.0, 0.5, 0.125, 0.0625, 0.03125, 1.0, 0.25, 0.0625, 0.03125, 0.015625, 0.5, 0.125, 0.03125, 0.015625, 0.0078125),
]
SMALL: dict[str, Any] = {
    **{"sampler": SAMPLER, "restoration_sampler": {**SAMPLER, "steps": 2}},
    **{"samples": 3, "iterations": 4, "batch": 2, "least_rows": 0.0},
}
STREAMS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "uniform_posterior": (
        (16, 19),
        {
            "rows": {**ROWS, "block": 8, "per_iteration": 4.0, "growth": 1.6, "complete": 1.0},
            "quantizer": {"name": "uniform", "step": 5.0},
            "coder": {"name": "posterior", "gains": [1.0, 2.5, 1.5]},
            "restoration": {"name": "mean", "samples": 2},
        },
    ),
    "learned_posterior": (
        (16, 21),
        {
            "rows": {
                **LEARNED,
                "block": 8,
                "per_iteration": 1.0,
                "floor": 0.25,
                "complete": 0.5,
                "first": "prior",
            },
            "quantizer": {"name": "uniform", "step": 12.0},
            **PLAIN,
        },
    ),
    "trellis_posterior": (
        (16, 24),
        {
            "rows": {
                **LEARNED,
                "block": 8,
                "per_iteration": 12.0,
                "first": "prior",
            },
            "quantizer": {"name": "trellis", "step": 3.0},
            **PAIRED,
        },
    ),
    "pyramid_posterior": (
        (18, 24),
        {
            "rows": {
                **LEARNED,
                "block": 8,
                "per_iteration": 6.0,
                "first": "pyramid",
            },
            "quantizer": {"name": "trellis", "step": 12.0},
            "least_rows": 3.0,
            **PAIRED,
        },
    ),
    "weighted_posterior": (
        (18, 26),
        {
            "rows": {
                **LEARNED,
                "block": 8,
                "per_iteration": 6.0,
                "first": "pyramid",
                "chroma": 0.75,
                "knee": 0.125,
            },
            "quantizer": {"name": "trellis", "step": 8.0},
            **PAIRED,
        },
    ),
    "coarse_posterior": (
        (18, 26),
        {
            "rows": {
                **LEARNED,
                "block": 4,
                "per_iteration": 2.0,
                "complete": 0.0,
                "first": "pyramid",
                "chroma": 0.75,
                "coarse": 2.5,
            },
            "quantizer": {"name": "trellis", "step": 8.0},
            **PAIRED,
        },
    ),
    "statistics_pyramid": (
        (18, 26),
        {
            "rows": {
                **LEARNED,
                "block": 4,
                "per_iteration": 2.0,
                "complete": 0.0,
                "first": "pyramid",
                "statistics": STATISTICS,
            },
            "quantizer": {"name": "trellis", "step": 12.0},
            **PAIRED,
        },
    ),
    "statistics_prior": (
        (18, 20),
        {
            "rows": {
                **ROWS,
                "block": 4,
                "per_iteration": 3.0,
                "growth": 1.5,
                "first": "prior",
                "coarse": 1.0,
                "statistics": STATISTICS,
            },
            "quantizer": {"name": "uniform", "step": 8.0},
            **PLAIN,
        },
    ),
    "trellis4_posterior": (
        (16, 19),
        {
            "rows": {**ROWS, "block": 8, "per_iteration": 4.0, "growth": 1.6, "complete": 0.0},
            "quantizer": {"name": "trellis", "step": 3.5, "weight": 0.0, "states": 4, "bits": 5},
            "coder": {"name": "posterior", "gains": [1.0, 0.5]},
            "restoration": {"name": "mean", "samples": 1},
        },
    ),
    "deadzone_adaptive": (
        (21, 34),
        {
            "rows": {
                **ROWS,
                "block": 4,
                "per_iteration": 1.0,
                "growth": 1.6,
                "base": 0.25,
                "evenness": 0.0,
                "complete": 0.0,
            },
            "quantizer": {"name": "deadzone", "step": 0.125, "delta": 0.0625, "bits": 12},
            "coder": {"name": "adaptive", "weight": 4},
            "restoration": "sample",
            "seed": 12345678901234567890,
        },
    ),
    "float8_raw": (
        (33, 17),
        {
            "sampler": {**SAMPLER, "spacing": "linear", "eta": 0.5},
            "rows": {
                **ROWS,
                "block": 16,
                "per_iteration": 8.0,
                "growth": 1.6,
                "neighbours": 0.0,
                "evenness": 1.0,
                "complete": 0.0,
            },
            "quantizer": "float8",
            "coder": "raw",
            "restoration": {"name": "mean", "samples": 1},
            "seed": 1,
        },
    ),
    "ddcm": ((16, 19), {"name": "ddcm", "level": 1.5, "entries": 8, "group": 9}),
    "turbo_ddcm": ((16, 21), {"name": "turbo_ddcm", "level": 1.0, "steps": 5, "flow": 2, "seed": 1}),
    "diffc": ((16, 19), {"name": "diffc", "level": 1.0, "steps": 4, "chunk": 6, "candidates": 10}),
}
"""Size of the image and what differs from the default recipe, or the options of another family."""
SHIPPED = ("fast", "default", "best", "turbo", "perceptual")
PHOTOGRAPHS = GOLDEN / "recipes"
PHOTOGRAPH_FACTS = PHOTOGRAPHS / "photograph.json"


def save_golden_prior(folder: Path) -> str:
    """A small network that sees the image at half resolution, as a folder for ``prior: ddpm``; returns its name."""
    network = ResidualUNet(block_out_channels=(8, 12), blocks=(1, 1))
    fill(network, 20)
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(network, schedule).save(folder)
    return str(folder)


def fill(network: nn.Module, seed: int) -> None:
    """Weights that are the same on every machine: noise times powers of two, and about 1 in norms."""
    noise = Noise(seed)
    with torch.no_grad():
        for number, (name, weight) in enumerate(network.named_parameters()):
            gain = 2.0**-7 if weight.ndim == 1 else 2.0 ** -round(np.log2(weight[0].numel()) / 2)
            values = noise.normal(tuple(weight.shape), iteration=number, sample=0, step=0) * gain
            weight.copy_(values + 1 if weight.ndim == 1 and name.endswith("weight") else values)


def golden_image(height: int, width: int) -> Pixels:
    """A slope and a disc in colour, with a little noise; integers throughout."""
    y, x = np.mgrid[:height, :width]
    inside = (2 * y - height) ** 2 + (2 * x - width) ** 2 < height * width // 2
    grains = (Noise(21).normal((height, width, 3), iteration=0, sample=0, step=0).numpy() * 4).astype(np.int64)
    colour = np.array([90, 0, -60]) * inside[..., None]
    pixels: Pixels = np.clip((4 * y + 3 * x)[..., None] + 40 + colour + grains, 0, 255).astype(np.uint8)
    return pixels


def golden_codec(name: str, prior: str) -> tuple[Codec, Pixels]:
    """Codec and image of a stream."""
    size, options = STREAMS[name]
    if "name" in options:
        config = Path(prior).parent / f"{name}.yaml"
        form = {"name": "ddpm", "path": prior, "exact": True}
        config.write_text(json.dumps({"model": {"codec": {**options, "prior": form}}}))
        return load_codec(config), golden_image(*size)
    codec = load_codec("default", prior={"path": prior, "exact": True}, **{**SMALL, **options})
    return codec, golden_image(*size)


def golden_photograph() -> Pixels:
    """A face: 48 by 64 pixels of a bundled photograph."""
    return read_image(BUNDLED / "astronaut.png")[16:64, 40:104]


def compress_photograph(recipe: str) -> bytes:
    """The stream of :func:`golden_photograph` under a shipped recipe."""
    return load_codec(recipe).compress(golden_photograph(), quality=50)


def photograph_facts(data: bytes, pixels: Pixels) -> dict[str, Any]:
    """What is promised of a stream of the photograph; the payload's digest does not depend on the header."""
    return {**facts_of(data, pixels), "payload": sha256(unpack(data)[1]).hexdigest()}


def facts_of(data: bytes, pixels: Pixels) -> dict[str, Any]:
    """What is promised of a stream."""
    return {
        "bytes": len(data),
        "stream": sha256(data).hexdigest(),
        "size": list(pixels.shape[:2]),
        "pixels": sha256(pixels.tobytes()).hexdigest(),
    }


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    facts = {}
    with TemporaryDirectory() as folder:
        prior = save_golden_prior(Path(folder))
        for name in STREAMS:
            codec, image = golden_codec(name, prior)
            data = codec.compress(image)
            (GOLDEN / f"{name}.pscx").write_bytes(data)
            facts[name] = facts_of(data, codec.decompress(data))
            print(f"{name}: {len(data)} bytes")
    FACTS.write_text(json.dumps(facts, indent=2) + "\n")
    write_photographs()
    recipes = {name: recipe_spec(number) for number, name in RECIPES.items()}
    (GOLDEN / "recipes.json").write_text(json.dumps(recipes, indent=2) + "\n")


def write_photographs() -> None:
    PHOTOGRAPHS.mkdir(exist_ok=True)
    facts = {}
    for recipe in SHIPPED:
        data = compress_photograph(recipe)
        (PHOTOGRAPHS / f"{recipe}.pscx").write_bytes(data)
        facts[recipe] = photograph_facts(data, load_codec(recipe).decompress(data))
        print(f"recipes/{recipe}: {len(data)} bytes")
    PHOTOGRAPH_FACTS.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
