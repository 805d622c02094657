"""Folders of tiny Stable Diffusion and SDXL models as single files: all weights under the names of their authors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def save_single_file(folder: Path, file: Path) -> Path:
    """All weights of a folder in one file."""
    weights = {f"model.diffusion_model.{unet_name(key)}": value for key, value in of(folder / "unet")}
    weights |= {f"first_stage_model.{key}": value for key, value in map(of_vae, of(folder / "vae"))}
    if (folder / "text_encoder_2").is_dir():
        prefix = "conditioner.embedders.0.transformer."
        weights |= open_clip("conditioner.embedders.1.model.", dict(of(folder / "text_encoder_2")))
    else:
        prefix = "cond_stage_model.transformer."
    clip = dict(of(folder / "text_encoder"))
    weights |= {f"{prefix}text_model.{key.removeprefix('text_model.')}": value for key, value in clip.items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, file)
    return file


def of(folder: Path) -> list[tuple[str, Tensor]]:
    return list(load_file(next(folder.glob("*.safetensors"))).items())


def unet_name(key: str) -> str:
    """Of a UNet with two levels of one block."""
    for ours, theirs in UNET.items():
        if key.startswith(f"{ours}."):
            return theirs + resnet(key.removeprefix(ours), "resnets" in ours)
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)(\..*)", key)
    assert found, key
    side, level, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if side == "down":
        number = 1 + 2 * level + (1 if part == "downsamplers" else layer)
        place = f"input_blocks.{number}.{int(part == 'attentions')}"
        rest = rest.replace(".conv.", ".op.")
    else:
        number = 2 * level + (1 if part == "upsamplers" else layer)
        place = f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2}[part] }"
    return place + resnet(rest, part == "resnets")


def resnet(rest: str, is_one: bool) -> str:
    for ours, theirs in RESNET.items() if is_one else ():
        if rest.startswith(f".{ours}."):
            return f".{theirs}.{rest.removeprefix(f'.{ours}.')}"
    return rest


def of_vae(item: tuple[str, Tensor]) -> tuple[str, Tensor]:
    """Of an autoencoder with three levels; linear layers of its attention are convolutions there."""
    key, value = item
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{2 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", key)
    side, found, rest = key.partition(".mid_block.attentions.0.")
    if not found:
        return key, value
    name, _, kind = rest.rpartition(".")
    return f"{side}.mid.attn_1.{VAE_ATTENTION[name]}.{kind}", value[..., None, None] if value.ndim == 2 else value


def open_clip(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a text encoder with a projection: queries, keys and values are one matrix there."""
    weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
    found: dict[str, Any] = {
        "positional_embedding": weights["embeddings.position_embedding.weight"],
        "token_embedding.weight": weights["embeddings.token_embedding.weight"],
        "ln_final.weight": weights["final_layer_norm.weight"],
        "ln_final.bias": weights["final_layer_norm.bias"],
        "text_projection": weights["text_projection.weight"].T,
    }
    for key, value in weights.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key)
        if layer and layer[2] in OPEN_CLIP:
            found[f"transformer.resblocks.{layer[1]}.{OPEN_CLIP[layer[2]]}.{layer[3]}"] = value
        elif layer and layer[2] == "self_attn.q_proj":
            three = [weights[key.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            found[f"transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"] = torch.cat(three)
    return {f"{prefix}{key}": value for key, value in found.items()}
