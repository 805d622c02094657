"""What the tests of the command line share: a network small enough to train and run in a moment, and a codec of it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel

from pscx import Codec
from pscx.codecs import PSC
from pscx.networks import ResidualUNet
from pscx.priors.denoiser import PixelDenoiser

CODEC = """\
model:
  codec:
    prior: gaussian
    sampler: {name: ddrm, steps: 2}
    rows: {name: local, block: 8, per_iteration: 2.5}
    quantizer: {name: uniform, step: 0.25}
    coder: posterior
    restoration: {name: mean, samples: 2}
    samples: 2
    iterations: 3
"""
EXACT = """\
model:
  codec:
    prior: {{name: ddpm, path: {path}, exact: true}}
    sampler: {{name: ddrm, steps: 2}}
    rows: {{name: dct, block: 8}}
    quantizer: {{name: uniform, step: 0.2}}
    coder: posterior
    restoration: {{name: mean, samples: 2}}
    samples: 2
    iterations: 3
"""


def write_codec(folder: Path, text: str = CODEC, name: str = "codec.yaml") -> str:
    """A config file; returns its name."""
    path = folder / name
    path.write_text(text)
    return str(path)


def psc_of(codec: Codec) -> PSC:
    """The codec behind it, which has the components of PSC."""
    psc = codec.signal_codec
    assert isinstance(psc, PSC)
    return psc


def tiny_network(seed: int = 0, channels: int = 3, outputs: int | None = None) -> UNet2DModel:
    """The real class at its smallest, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=16,
            in_channels=channels,
            out_channels=outputs or channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            add_attention=False,
        )


def save_prior(folder: Path, seed: int) -> str:
    """A pixel prior with random weights, as a folder that ``prior: ddpm`` loads; returns its name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResidualUNet(in_channels=3, out_channels=3, block_out_channels=(8, 16), blocks=(1, 1))
        torch.nn.init.normal_(network.tail.weight, std=0.1)
    PixelDenoiser(network, DDPMScheduler(prediction_type="v_prediction")).save(folder)
    return str(folder)
