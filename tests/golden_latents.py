"""Streams of an exact latent prior, whose bytes and latents are a promise: on every machine, as in golden_streams.py.

    python tests/golden_latents.py

writes ``tests/golden_latents`` anew, which is to be done where the format or the arithmetic changes on purpose, and
never after a release. The prior is of the real classes of Stable Diffusion, at their smallest. Its weights come from
integers, and so do the latents that are encoded: the autoencoder is floating point, so no picture goes through it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from golden_streams import fill
from tiny_latent import save_stable_diffusion
from torch import Tensor

from pscx import Decompressor, load_codec
from pscx.priors.latent import LatentPrior
from pscx.signal.noise import Noise

GOLDEN = Path(__file__).parent / "golden_latents"
FACTS = GOLDEN / "golden.json"
SAMPLER = {"name": "ddrm", "steps": 3}
STREAMS: dict[str, dict[str, Any]] = {
    "psc": {
        "sampler": SAMPLER,
        "restoration_sampler": SAMPLER,
        "rows": {"name": "dct", "block": 4, "per_iteration": 6.0},
        "quantizer": {"name": "uniform", "step": 0.5},
        "coder": "posterior",
        "restoration": {"name": "mean", "samples": 2},
        **{"samples": 2, "iterations": 3, "batch": 2, "antithetic": False},
    },
    "turbo_ddcm": {"name": "turbo_ddcm", "level": 0.5, "steps": 5, "flow": 2, "seed": 1},
}
"""The codec, without its prior."""
CAPTIONS = {"psc": "a cat"}
SIZE = (27, 44)


def save_prior(folder: Path) -> str:
    return save_stable_diffusion(folder, fill=partial(fill, seed=22))


@contextmanager
def without_autoencoder() -> Iterator[list[Tensor]]:
    """Every picture has latents of noise; the latents of pictures to show are kept, and shown as grey."""
    kept: list[Tensor] = []

    def to_signal(prior: LatentPrior, image: Tensor) -> Tensor:
        shape = (1, *prior.signal_shape(*image.shape[2:]))
        return Noise(23).normal(shape, iteration=0, sample=0, step=0).to(image)

    def to_image(prior: LatentPrior, latents: Tensor) -> Tensor:
        kept.append(latents)
        return latents.new_zeros(1, 3, *(prior.autoencoder.factor * side for side in latents.shape[2:]))

    with patch.object(LatentPrior, "to_signal", to_signal), patch.object(LatentPrior, "to_image", to_image):
        yield kept


def encoded(name: str, prior: str) -> bytes:
    """The stream of latents made of integers."""
    codec_of = {**STREAMS[name], "prior": {"name": "stable_diffusion", "path": prior, "exact": True, "guidance": 2.3}}
    if "name" in codec_of:
        config = Path(prior).parent / f"{name}.yaml"
        config.write_text(json.dumps({"model": {"codec": codec_of}}))
        codec = load_codec(config)
    else:
        codec = load_codec("default", **codec_of)
    with without_autoencoder():
        return codec.compress(np.zeros((*SIZE, 3), np.uint8), caption=CAPTIONS.get(name))


def facts_of(data: bytes, prior: str) -> dict[str, Any]:
    """What is promised of a stream."""
    with without_autoencoder() as kept:
        Decompressor(prior_path=prior).decompress(data)
    (latents,) = kept
    return {
        "bytes": len(data),
        "stream": sha256(data).hexdigest(),
        "shape": list(latents.shape),
        "latents": sha256(latents.numpy().astype("<f8").tobytes()).hexdigest(),
    }


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    facts = {}
    with TemporaryDirectory() as folder:
        prior = save_prior(Path(folder) / "prior")
        for name in STREAMS:
            data = encoded(name, prior)
            (GOLDEN / f"{name}.pscx").write_bytes(data)
            facts[name] = facts_of(data, prior)
            print(f"{name}: {len(data)} bytes")
    FACTS.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
