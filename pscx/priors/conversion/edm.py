"""``python -m pscx.priors.conversion.edm NETWORK.safetensors NETWORK.json FOLDER``: ADM networks that EDM trained.

Karras et al. 2022. The published files are pickles of classes, so they are opened in EDM's own code base, once, and
written as tensors and options (``docs/priors.md``). From these a ``UNet2DModel`` of diffusers is made.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pscx.priors.conversion.adm import Shape, Weights, attention, exit_code, renamed, with_label, write
from pscx.priors.edm_denoiser import NUMBERS, SCHEDULERS
from pscx.priors.single_file import read_checkpoint
from pscx.runtime.safe_yaml import read_json

MODEL, KIND, PRECONDITIONING = "model.", "DhariwalUNet", "EDMPrecond"
HEAD, ORDER = 64, "head channel part"
LEAST = 128  # channels for 32 groups of a norm
RESIDUAL = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "conv_shortcut",
}


def convert(weights: Path, options: Path, folder: Path, *, label: int | None = None) -> None:
    """Write the network into a folder that ``prior: ddpm`` loads.

    Args:
        weights: the network's state dictionary as safetensors.
        options: ``{"class": "EDMPrecond", "options": {...}}``, the network's class and what it was built with, as JSON.
        folder: gets ``unet/`` and ``scheduler/``.
        label: class that a network with classes is told, always.

    Raises:
        ValueError: the network is of another kind, or ``weights`` is no safetensors.
        KeyError: the network lacks a weight.
    """
    about = read_json(options)
    if not isinstance(about, dict) or about.get("class") != PRECONDITIONING:
        found = about.get("class") if isinstance(about, dict) else about
        raise ValueError(f"'{options}' must hold the class {PRECONDITIONING} and its options, got {found!r}")
    given: dict[str, Any] = about.get("options") or {}
    if given.get("model_type", KIND) != KIND:
        raise ValueError(f"options.model_type must be {KIND}, the architecture ADM, got {given['model_type']!r}")
    tensors = {key.removeprefix(MODEL): value.float() for key, value in read_checkpoint(weights).items()}
    shape = shape_of(tensors)
    numbers = {**NUMBERS, "sigma_data": float(given.get("sigma_data", NUMBERS["sigma_data"]))}
    write(folder, shape, named(tensors, shape, label), {"_class_name": SCHEDULERS[0], **numbers})


def shape_of(weights: Mapping[str, Tensor]) -> Shape:
    """The network's shape, from its weights. Raises ``ValueError`` where they are of no such network."""
    sides = _sides(weights)
    if not sides or "out_conv.weight" not in weights:
        raise ValueError(f"the weights are not those of a {KIND}, such as {MODEL}out_conv.weight")
    widths = [len(weights[f"enc.{side}x{side}_block0.conv1.weight"]) for side in sides]
    if widths[0] < LEAST:
        raise ValueError(f"the network must have at least {LEAST} channels, got {widths[0]}")
    first = f"enc.{sides[0]}x{sides[0]}_block"
    return Shape(
        widths=widths,
        blocks=len({key.split(".")[1] for key in weights if key.startswith(first)}),
        attention=[level for level, side in enumerate(sides) if f"enc.{side}x{side}_block0.qkv.weight" in weights],
        head=HEAD,
        channels=len(weights["out_conv.weight"]),
        resampling="resnet",
        scaled=True,
        embedding=len(weights["map_layer1.weight"]),
    )


def named(weights: Mapping[str, Tensor], shape: Shape, label: int | None) -> Weights:
    """All weights under the names of ``UNet2DModel``."""
    sides = _sides(weights)
    plain = {"map_layer0": "time_embedding.linear_1", "map_layer1": "time_embedding.linear_2"}
    plain |= {f"enc.{sides[0]}x{sides[0]}_conv": "conv_in", "out_norm": "conv_norm_out", "out_conv": "conv_out"}
    found = {f"{new}.{kind}": weights[f"{old}.{kind}"] for old, new in plain.items() for kind in ("weight", "bias")}
    bias, labels = "time_embedding.linear_2.bias", weights.get("map_label.weight")
    found[bias] = with_label(found[bias], None if labels is None else labels.T, label)
    last = f"dec.{sides[-1]}x{sides[-1]}"
    places = {f"{last}_in0": ("mid_block", 0), f"{last}_in1": ("mid_block", 1)}
    for level, side in enumerate(sides):
        up = len(sides) - 1 - level
        places |= {f"enc.{side}x{side}_block{i}": (f"down_blocks.{level}", i) for i in range(shape.blocks)}
        places |= {f"dec.{side}x{side}_block{i}": (f"up_blocks.{up}", i) for i in range(shape.blocks + 1)}
        if level:
            found |= renamed(weights, RESIDUAL, f"enc.{side}x{side}_down", f"down_blocks.{level - 1}.downsamplers.0")
        if up:
            found |= renamed(weights, RESIDUAL, f"dec.{side}x{side}_up", f"up_blocks.{up - 1}.upsamplers.0")
    for old, (new, i) in places.items():
        found |= renamed(weights, RESIDUAL, old, f"{new}.resnets.{i}")
        if f"{old}.qkv.weight" in weights:
            names = {"norm": f"{old}.norm2", "qkv": f"{old}.qkv", "proj": f"{old}.proj"}
            parts = attention(weights, names, ORDER, HEAD)
            found |= {f"{new}.attentions.{i}.{key}": value for key, value in parts.items()}
    return found


def _sides(weights: Mapping[str, Tensor]) -> list[int]:
    """Resolutions of all levels, the finest first."""
    found = (re.match(r"enc\.(\d+)x\1_", key) for key in weights)
    return sorted({int(match[1]) for match in found if match}, reverse=True)


def main(args: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = ArgumentParser(prog="python -m pscx.priors.conversion.edm", description=convert.__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("options", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label", type=int, help="class that a network with classes is told")
    given = parser.parse_args(args)
    return exit_code(lambda: convert(given.weights, given.options, given.folder, label=given.label))


if __name__ == "__main__":
    sys.exit(main())
