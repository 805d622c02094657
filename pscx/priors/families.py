"""Which prior a checkpoint is for, told by its configuration or the names of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pscx.runtime.quiet import importing
from pscx.runtime.safe_yaml import read_json

BY_DENOISER = {
    "UNet2DModel": "ddpm",
    "ResidualUNet": "ddpm",
    "NoiseExperts": "ddpm",
    "UNet2DConditionModel": "stable_diffusion",
    "SD3Transformer2DModel": "sd3",
    "FluxTransformer2DModel": "flux",
    "SanaTransformer2DModel": "sana",
}
BY_FILE = {
    "v1": "stable_diffusion",
    "v2": "stable_diffusion",
    "xl_base": "sdxl",
    "sd3": "sd3",
    "sd35_large": "sd3",
    "sd35_medium": "sd3",
    "flux-dev": "flux",
    "flux-schnell": "flux",
    "sana": "sana",
}
"""What diffusers calls a single file by the names of its weights, and the prior."""
CONFIGS = ("unet/config.json", "transformer/config.json", "config.json")


def check_family(folder: Path, wanted: str) -> None:
    """Raise ``ValueError`` where a folder's denoiser is that of another prior than ``wanted``, or of none."""
    file = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if file is None:
        return
    config = read_json(file)
    name = str(config.get("_class_name"))
    found = _of_unet(config) if name == "UNet2DConditionModel" else BY_DENOISER.get(name)
    if found is None:
        raise ValueError(f"'{file}' is of a {name}, which no prior loads")
    _check(found, wanted, f"'{file}' is of a {name}")


def _of_unet(config: Mapping[str, Any]) -> str:
    return "sdxl" if config.get("addition_embed_type") == "text_time" else "stable_diffusion"


def check_file_family(file: Path, checkpoint: Mapping[str, Tensor], wanted: str) -> None:
    """Raise ``ValueError`` where a single file holds the weights of another prior than ``wanted``, or of none."""
    name = model_type(checkpoint)
    found = BY_FILE.get(name)
    if found is None:
        raise ValueError(f"'{file}' holds weights of the kind '{name}', which no prior loads")
    _check(found, wanted, f"'{file}' holds weights of the kind '{name}'")


def model_type(checkpoint: Mapping[str, Tensor]) -> str:
    """What diffusers takes a single file for; ``v1`` where it knows none of its weights' names."""
    with importing():
        from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    return str(infer_diffusers_model_type(checkpoint))


def _check(found: str, wanted: str, what: str) -> None:
    if found != wanted:
        raise ValueError(f"{what}, which the prior '{found}' loads: set prior.name to {found}")
