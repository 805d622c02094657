"""A Stable Diffusion and a BLIP-2 of the real classes at their smallest, with random weights, saved as folders."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import nn

from pscx.runtime.quiet import quiet, without_bars

TOKENS = 12  # of a prompt, the first and the last included
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase), "ca", "cat</w>", START, END]
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_stable_diffusion(
    folder: Path, seed: int = 0, prediction: str = "epsilon", fill: Callable[[nn.Module], None] | None = None
) -> str:
    """Latents of 4 channels at a quarter of the side; sides are multiples of 8 pixels. Returns the folder's name.

    ``fill`` changes the weights of each network.
    """
    with torch.random.fork_rng(devices=[]), quiet(), without_bars():
        torch.manual_seed(seed)
        for part, make in (("unet", tiny_unet), ("vae", tiny_vae), ("text_encoder", tiny_text_encoder)):
            network = make()
            if fill is not None:
                fill(network)
            network.save_pretrained(folder / part)
    PNDMScheduler(**BETAS, prediction_type=prediction, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    save_tokenizer(folder / "tokenizer")
    return str(folder)


def tiny_unet(in_channels: int = 4, cross_attention_dim: int = 8) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
    )


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
        scaling_factor=0.5,
    )


def tiny_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {"bos_token_id": WORDS.index(START), "eos_token_id": WORDS.index(END), "pad_token_id": WORDS.index(END)}
    sizes = {"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 16, "max_position_embeddings": TOKENS}
    return CLIPTextModel(
        CLIPTextConfig(num_hidden_layers=2, num_attention_heads=2, initializer_range=1.0, **sizes, **ends)
    )


def save_tokenizer(folder: Path) -> None:
    """Letters, and one word: cat."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    ends = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def save_blip2(folder: Path, seed: int) -> str:
    """Images of 16x16 in four patches, a language model over printable characters; returns the folder's name."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, GPT2Tokenizer

    folder.mkdir()
    words = ["<s>", "<pad>", "</s>", "<unk>", *map(chr, range(33, 127)), "\u0120"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = GPT2Tokenizer.from_pretrained(write_json(folder / "tokenizer_config.json", ends).parent)
    processor = Blip2Processor(image_processor()(size={"height": 16, "width": 16}), tokenizer, num_query_tokens=3)
    layers = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 1.0}
    config = Blip2Config(
        vision_config={**layers, "intermediate_size": 16, "image_size": 16, "patch_size": 8},
        qformer_config={**layers, "intermediate_size": 16, "encoder_hidden_size": 8, "vocab_size": 8},
        text_config={
            **layers,
            **{"model_type": "opt", "vocab_size": len(tokenizer), "ffn_dim": 16, "word_embed_proj_dim": 8},
            **{"init_std": 1.0, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2},
        },
        num_query_tokens=3,
        image_token_index=len(tokenizer) - 1,
    )
    with torch.random.fork_rng(devices=[]), quiet(), without_bars():
        torch.manual_seed(seed)
        Blip2ForConditionalGeneration(config).save_pretrained(folder)
        processor.save_pretrained(folder)
    return str(folder)


def image_processor() -> Any:
    """The one that works on Pillow images alone, under its name in this version of transformers."""
    import transformers

    return getattr(transformers, "BlipImageProcessorPil", None) or transformers.BlipImageProcessor


def write_json(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and an empty cache, whatever this machine has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
