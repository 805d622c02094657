"""The network of Dhariwal and Nichol 2021 (ADM) as a ``UNet2DModel``: what both of its publishers' names come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pscx.runtime.printing import complain
from pscx.runtime.quiet import importing, quiet

Weights = dict[str, Tensor]
ATTENTION = ("to_q", "to_k", "to_v")


@dataclass(frozen=True)
class Shape:
    """What the weights of an ADM network do not say under their new names.

    Args:
        widths: channels of each level, the finest first.
        blocks: residual blocks of a level on the way down.
        attention: levels with self-attention; the middle of the network has it in any case.
        head: channels of a head.
        channels: of the answer.
        resampling: ``resnet`` where residual blocks change the resolution, ``conv`` where a convolution does.
        scaled: whether the embedding of time scales and shifts, rather than being added.
        embedding: width of the embedding of time.

    Raises:
        ValueError: ``UNet2DModel`` has no such network.
    """

    widths: list[int]
    blocks: int
    attention: list[int]
    head: int
    channels: int
    resampling: str
    scaled: bool
    embedding: int

    def __post_init__(self) -> None:
        for width in self.widths:
            if width % self.head:
                raise ValueError(f"head channels must divide the {width} channels of a level, got {self.head}")
        if self.embedding != 4 * self.widths[0]:
            raise ValueError(
                f"the embedding of time must be 4 times as wide as the first level ({self.widths[0]}), got "
                f"{self.embedding}: no network of diffusers is so"
            )

    def config(self) -> dict[str, Any]:
        """Options of ``UNet2DModel``."""
        resnet = self.resampling == "resnet"
        down, up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
        levels = range(len(self.widths))
        return {
            "in_channels": 3,
            "out_channels": self.channels,
            "block_out_channels": self.widths,
            "layers_per_block": self.blocks,
            "down_block_types": ["AttnDownBlock2D" if level in self.attention else down for level in levels],
            "up_block_types": ["AttnUpBlock2D" if level in self.attention else up for level in reversed(levels)],
            "downsample_type": self.resampling,
            "upsample_type": self.resampling,
            "downsample_padding": 1,
            "attention_head_dim": self.head,
            "norm_num_groups": 32,
            "attn_norm_num_groups": 32,
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "resnet_time_scale_shift": "scale_shift" if self.scaled else "default",
        }


def write(folder: Path, shape: Shape, weights: Weights, schedule: Mapping[str, Any]) -> None:
    """Write ``unet/`` and ``scheduler/``. Raises ``ValueError`` where the weights are not those of the network."""
    with importing():
        from diffusers import UNet2DModel

    with quiet(), torch.device("meta"):
        network = UNet2DModel.from_config(shape.config())
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(f"the weights are not those of an ADM network: {reason}") from error
    network.save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    text = json.dumps(schedule, indent=2, sort_keys=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(f"{text}\n", encoding="utf-8")


def queries_keys_values(joined: Tensor, order: str, head: int) -> list[Tensor]:
    """The three parts of one weight or bias ``(3 channels, ...)``, each ``(channels, ...)``.

    ``order`` is that of its rows, from the outermost: ``head part channel``, ``part head channel`` or
    ``head channel part``, with ``head`` channels of a head.
    """
    heads = joined.shape[0] // (3 * head)
    sizes = {"head": heads, "part": 3, "channel": head}
    names = order.split()
    apart = joined.reshape(*(sizes[name] for name in names), *joined.shape[1:])
    return [part.reshape(heads * head, *joined.shape[1:]).contiguous() for part in apart.unbind(names.index("part"))]


def attention(weights: Mapping[str, Tensor], names: Mapping[str, str], order: str, head: int) -> Weights:
    """The weights of a self-attention; ``names`` of its norm, its joined ``qkv`` and its projection, as published."""
    found: Weights = {}
    for kind in ("weight", "bias"):
        found[f"group_norm.{kind}"] = weights[f"{names['norm']}.{kind}"]
        joined = weights[f"{names['qkv']}.{kind}"].flatten(1) if kind == "weight" else weights[f"{names['qkv']}.{kind}"]
        parts = queries_keys_values(joined, order, head)
        found |= {f"{part}.{kind}": value for part, value in zip(ATTENTION, parts, strict=True)}
        out = weights[f"{names['proj']}.{kind}"]
        found[f"to_out.0.{kind}"] = out.flatten(1) if kind == "weight" else out
    return found


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str], old: str, new: str) -> Weights:
    """The weights of each layer below ``old``, by the layer's name there, under ``new`` and its name here."""
    found: Weights = {}
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            value = weights.get(f"{old}.{theirs}.{kind}")
            if value is not None:
                found[f"{new}.{ours}.{kind}"] = value
    return found


def with_label(bias: Tensor, labels: Tensor | None, label: int | None) -> Tensor:
    """The bias of the last layer before time and class are added, with one class in it.

    ``labels`` has a row for each class; none for a network without classes. Raises ``ValueError`` where a class is
    wanted and there is none, or the other way round.
    """
    if labels is None:
        if label is not None:
            raise ValueError("--label must be left out: the network knows no classes")
        return bias
    if label is None or not 0 <= label < len(labels):
        raise ValueError(f"--label must be in 0..{len(labels) - 1}, as the network is told a class, got {label}")
    return bias + labels[label]


def exit_code(convert: Callable[[], None]) -> int:
    """0, or 2 and one sentence on stderr where a conversion is refused."""
    try:
        convert()
    except KeyError as error:
        complain(f"the file has no weights for {error}")
    except (OSError, ValueError) as error:
        complain(str(error))
    else:
        return 0
    return 2
