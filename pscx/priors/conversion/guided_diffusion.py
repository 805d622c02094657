"""``python -m pscx.priors.conversion.guided_diffusion CHECKPOINT.pt FOLDER``: ImageNet networks of ADM.

Dhariwal and Nichol 2021, as published in ``guided-diffusion``. The checkpoint is read as tensors alone
(``weights_only=True``). What it holds is written as a ``UNet2DModel`` of diffusers and its noise schedule.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pscx.priors.conversion.adm import Shape, Weights, attention, exit_code, renamed, with_label, write

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ORDERS = {False: "head part channel", True: "part head channel"}
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}


def convert(
    checkpoint: Path,
    folder: Path,
    *,
    head: int = 64,
    schedule: str = "linear",
    new_order: bool = False,
    label: int | None = None,
) -> None:
    """Write the network of a checkpoint into a folder that ``prior: ddpm`` loads.

    Args:
        checkpoint: a state dictionary, as ``256x256_diffusion_uncond.pt``.
        folder: gets ``unet/`` and ``scheduler/``.
        head: channels of an attention head (``num_head_channels``).
        schedule: ``linear`` or ``cosine`` (``noise_schedule``), of 1000 steps.
        new_order: whether queries, keys and values lie apart in the weights (``use_new_attention_order``).
        label: class that a network with classes is told, always.

    Raises:
        ValueError: the file is no such checkpoint, or the network is none that diffusers has.
        KeyError: the network lacks a weight.
    """
    weights = read(checkpoint)
    shape = shape_of(weights, head)
    config = {**SCHEDULES[schedule], "num_train_timesteps": 1000, "prediction_type": "epsilon"}
    own = {"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "learned_range"}
    write(folder, shape, named(weights, shape, ORDERS[new_order], label), {**config, **own})


def read(file: Path) -> Weights:
    """The tensors of a checkpoint by name. Raises ``ValueError`` where it holds anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pickles that are not torch's
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"'{file}' is damaged or holds more than tensors, and is not read") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"'{file}' must hold a state dictionary of tensors")
    if "input_blocks.0.0.weight" not in found or "time_embed.2.weight" not in found:
        raise ValueError(f"'{file}' has no weights of guided-diffusion's network, such as input_blocks.0.0.weight")
    return {key: value.float() for key, value in found.items()}


def shape_of(weights: Mapping[str, Tensor], head: int) -> Shape:
    """The network's shape, from its weights. Raises ``ValueError`` where they are of no such network."""
    count = _count(weights, "input_blocks")
    ups = [_upsampler(weights, i) for i in range(_count(weights, "output_blocks"))]
    levels = 1 + sum(up is not None for up in ups)
    blocks = count // levels - 1
    if blocks < 1 or count != levels * (blocks + 1) or len(ups) != count:
        raise ValueError(f"the network has {count} blocks on the way down, which {levels} levels cannot share")
    first = [1 + level * (blocks + 1) for level in range(levels)]
    residual = any(f"input_blocks.{i + blocks}.0.in_layers.2.weight" in weights for i in first[:-1])
    widths = [len(weights[f"input_blocks.{i}.0.out_layers.3.weight"]) for i in first]
    return Shape(
        widths=widths,
        blocks=blocks,
        attention=[level for level, i in enumerate(first) if f"input_blocks.{i}.1.qkv.weight" in weights],
        head=head,
        channels=len(weights["out.2.weight"]),
        resampling="resnet" if residual or levels == 1 else "conv",
        scaled=len(weights["input_blocks.1.0.emb_layers.1.weight"]) == 2 * widths[0],
        embedding=len(weights["time_embed.2.weight"]),
    )


def named(weights: Mapping[str, Tensor], shape: Shape, order: str, label: int | None) -> Weights:
    """All weights under the names of ``UNet2DModel``."""
    plain = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
    plain |= {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    found = {f"{new}.{kind}": weights[f"{old}.{kind}"] for old, new in plain.items() for kind in ("weight", "bias")}
    bias = "time_embedding.linear_2.bias"
    found[bias] = with_label(found[bias], weights.get("label_emb.weight"), label)
    places = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    places["middle_block.1"] = "mid_block.attentions.0"
    group = shape.blocks + 1
    for i in range(1, len(shape.widths) * group):
        level, layer = (i - 1) // group, (i - 1) % group
        down = layer == shape.blocks
        part = "downsamplers.0" if down else f"resnets.{layer}"
        places[f"input_blocks.{i}.0"] = f"down_blocks.{level}.{part}"
        places[f"input_blocks.{i}.1"] = f"down_blocks.{level}.attentions.{layer}"
    for i in range(len(shape.widths) * group):
        up = _upsampler(weights, i)
        places[f"output_blocks.{i}.0"] = f"up_blocks.{i // group}.resnets.{i % group}"
        places[f"output_blocks.{i}.1"] = f"up_blocks.{i // group}.attentions.{i % group}"
        if up is not None:
            places[f"output_blocks.{i}.{up}"] = f"up_blocks.{i // group}.upsamplers.0"
    for old, new in places.items():
        found |= _module(weights, old, new, order, shape.head)
    return found


def _module(weights: Mapping[str, Tensor], old: str, new: str, order: str, head: int) -> Weights:
    """One residual block, self-attention or convolution, or nothing where there is none."""
    if f"{old}.qkv.weight" in weights:
        names = {"norm": f"{old}.norm", "qkv": f"{old}.qkv", "proj": f"{old}.proj_out"}
        return {f"{new}.{key}": value for key, value in attention(weights, names, order, head).items()}
    return renamed(weights, {**RESIDUAL, "op": "conv", "conv": "conv"}, old, new)


def _count(weights: Mapping[str, Tensor], side: str) -> int:
    return len({key.split(".")[1] for key in weights if key.startswith(f"{side}.")})


def _upsampler(weights: Mapping[str, Tensor], block: int) -> int | None:
    """Which module of a block on the way up doubles the resolution, or none."""
    for place in (1, 2):
        start = f"output_blocks.{block}.{place}"
        if f"{start}.in_layers.0.weight" in weights or f"{start}.conv.weight" in weights:
            return place
    return None


def main(args: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = ArgumentParser(prog="python -m pscx.priors.conversion.guided_diffusion", description=convert.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--head-channels", type=int, default=64, help="num_head_channels; default: 64")
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="linear", help="noise_schedule")
    parser.add_argument("--new-attention-order", action="store_true", help="use_new_attention_order, as of 64x64")
    parser.add_argument("--label", type=int, help="class that a network with classes is told")
    given = parser.parse_args(args)
    options = {"head": given.head_channels, "schedule": given.schedule, "new_order": given.new_attention_order}
    return exit_code(lambda: convert(given.checkpoint, given.folder, label=given.label, **options))


if __name__ == "__main__":
    sys.exit(main())
