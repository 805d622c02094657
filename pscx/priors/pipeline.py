"""The parts of a diffusers Stable Diffusion pipeline that a codec needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.priors.schedules import Scheduler, load_scheduler
from pscx.runtime.hub import local_folder, whole
from pscx.runtime.quiet import importing, quiet, without_bars

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

FILES = ("unet/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*")
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
VOCABULARIES = ("vocab.json", "tokenizer.json")
SAFE = {"use_safetensors": True}
OTHER_WEIGHTS = ("*.bin", "*.msgpack", "*.h5", "*.onnx*", "*.fp16.*", "*.non_ema.*")


@dataclass(frozen=True)
class Pipeline:
    """Rombach et al. 2022: a denoiser of latents, an autoencoder, a text encoder, and the noise schedule.

    Raises ``ValueError`` where the parts do not fit each other, or the denoiser asks for more than a prompt.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: Any
    tokenizer: Any
    scheduler: Scheduler

    def __post_init__(self) -> None:
        unet, latents = self.unet.config, self.vae.config.latent_channels
        if unet.in_channels != latents:
            raise ValueError(f"unet.in_channels must be the autoencoder's {latents}, got {unet.in_channels}")
        if unet.get("addition_embed_type") is not None:
            raise ValueError(f"unet.addition_embed_type must be null, got {unet['addition_embed_type']!r}")
        width = self.text_encoder.config.hidden_size
        if unet.cross_attention_dim != width:
            raise ValueError(
                f"unet.cross_attention_dim must be the text encoder's {width}, got {unet.cross_attention_dim}"
            )
        words = self.text_encoder.config.vocab_size
        if len(self.tokenizer) > words:
            raise ValueError(f"the tokenizer has {len(self.tokenizer)} tokens, and the text encoder only {words}")

    def embedding(self, prompt: str) -> Tensor:
        """The text encoder's answer to a prompt, ``(1, tokens, width)``. Raises ``PscxError`` where it is too long."""
        longest = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        options = {"padding": "max_length", "max_length": longest, "truncation": False, "verbose": False}
        tokens = self.tokenizer(prompt, **options).input_ids
        if len(tokens) > longest:
            ends = len(self.tokenizer("").input_ids)
            raise PscxError(
                f"the caption has {len(tokens) - ends} tokens and the prior's text encoder takes {longest - ends}: "
                "shorten it"
            )
        place = next(self.text_encoder.parameters()).device
        hidden: Tensor = self.text_encoder(torch.tensor([tokens]).to(place))[0]
        return hidden


def load_pipeline(path: str) -> Pipeline:
    """Load from a local folder or a hub id in the layout of ``StableDiffusionPipeline``; weights from safetensors only.

    Raises ``FileNotFoundError`` in one sentence where a part is missing or does not fit.
    """
    try:
        with quiet():
            folder = local_folder(path, FILES, OTHER_WEIGHTS)
        with quiet(), without_bars():
            return _load(folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no Stable Diffusion at '{path}': expected a local folder with unet/, vae/, text_encoder/, tokenizer/ and "
            f"scheduler/ and their safetensors, set as prior.path (or --prior to decompress), or a hub id that can be "
            f"reached ({str(error).splitlines()[0]})"
        ) from error


def _load(folder: Path) -> Pipeline:
    for file in CONFIGS:
        if not (folder / file).is_file():
            raise OSError(f"{folder / file} is missing")
    if not any((folder / "tokenizer" / file).is_file() for file in VOCABULARIES):
        raise OSError(f"{folder / 'tokenizer' / VOCABULARIES[0]} is missing")  # transformers would do without
    with importing():
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

    return Pipeline(
        unet=whole(UNet2DConditionModel.from_pretrained, folder / "unet", low_cpu_mem_usage=False, **SAFE),
        vae=whole(AutoencoderKL.from_pretrained, folder / "vae", low_cpu_mem_usage=False, **SAFE),
        text_encoder=whole(CLIPTextModel.from_pretrained, folder / "text_encoder", **SAFE),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=load_scheduler(folder / "scheduler"),
    )
