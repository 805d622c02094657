"""Latent pipelines of the real classes at their smallest, with random weights, saved in the published layouts."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tiny_latent import BETAS, END, START, TOKENS, WORDS, save_tokenizer

from pscx.runtime.quiet import quiet, without_bars

ENDS = {"bos_token_id": WORDS.index(START), "eos_token_id": WORDS.index(END), "pad_token_id": WORDS.index(END)}
T5_WORDS = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581cat", *string.ascii_lowercase]
GEMMA_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *string.ascii_lowercase]


def save_model_index(folder: Path, **values: Any) -> None:
    (folder / "model_index.json").write_text(json.dumps(values))


def save_scheduler(folder: Path, **values: Any) -> None:
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(values))


def clip(*, width: int = 8, projected: int | None = None, layers: int = 2) -> Any:
    """A text encoder of CLIP, with a projection where ``projected`` is its width."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {"vocab_size": len(WORDS), "hidden_size": width, "intermediate_size": 16, "max_position_embeddings": TOKENS}
    kind = {"num_hidden_layers": layers, "num_attention_heads": 2, "initializer_range": 1.0}
    config = CLIPTextConfig(projection_dim=projected or width, **sizes, **kind, **ENDS)
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def vae(channels: int = 4, **values: Any) -> AutoencoderKL:
    """Latents at a quarter of the side."""
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=32,
        **values,
    )


def sdxl_unet() -> UNet2DConditionModel:
    """Told a pooled embedding of 6 and six sizes of 4 numbers each."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=20,
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 + 6 * 4,
    )


def save_sdxl(folder: Path) -> str:
    """As ``stabilityai/stable-diffusion-xl-base-1.0``: sides are multiples of 8 pixels."""
    sdxl_unet().save_pretrained(folder / "unet")
    vae(scaling_factor=0.13025, force_upcast=True).save_pretrained(folder / "vae")
    clip().save_pretrained(folder / "text_encoder")
    clip(width=12, projected=6, layers=10).save_pretrained(folder / "text_encoder_2")  # a single file is told by ten
    for part in ("tokenizer", "tokenizer_2"):
        save_tokenizer(folder / part)
    save_scheduler(
        folder, _class_name="EulerDiscreteScheduler", **BETAS, prediction_type="epsilon", timestep_spacing="leading"
    )
    save_model_index(folder, _class_name="StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)
    return str(folder)


def t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": width, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    kind = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "is_encoder_decoder": False}
    return T5EncoderModel(T5Config(vocab_size=len(T5_WORDS), **sizes, **kind))


def save_t5_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True)
    made = Tokenizer(models.Unigram([(word, -1.0 - len(word) % 2) for word in T5_WORDS], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    ends = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0}
    options = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def save_sd3(folder: Path, *, long: bool = True) -> str:
    """As ``stabilityai/stable-diffusion-3.5-medium``: sides are multiples of 8 pixels; without T5 unless ``long``."""
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=8,
        pooled_projection_dim=10,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    transformer.save_pretrained(folder / "transformer")
    shifted_vae(1.5305, 0.0609).save_pretrained(folder / "vae")
    clip(projected=4).save_pretrained(folder / "text_encoder")
    clip(width=12, projected=6).save_pretrained(folder / "text_encoder_2")
    for part in ("tokenizer", "tokenizer_2"):
        save_tokenizer(folder / part)
    if long:
        t5(24).save_pretrained(folder / "text_encoder_3")
        save_t5_tokenizer(folder / "tokenizer_3")
    save_scheduler(folder, _class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, shift=3.0)
    save_model_index(folder, _class_name="StableDiffusion3Pipeline")
    return str(folder)


def shifted_vae(scale: float, shift: float) -> AutoencoderKL:
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "force_upcast": True}
    return vae(16, scaling_factor=scale, shift_factor=shift, **plain)


DYNAMIC = {"base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15}


def save_flux(folder: Path, *, guided: bool = True) -> str:
    """As ``black-forest-labs/FLUX.1-dev``, or as ``FLUX.1-schnell`` unless ``guided``; multiples of 8 pixels."""
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=8,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    transformer.save_pretrained(folder / "transformer")
    shifted_vae(0.3611, 0.1159).save_pretrained(folder / "vae")
    clip().save_pretrained(folder / "text_encoder")
    t5(24).save_pretrained(folder / "text_encoder_2")
    save_tokenizer(folder / "tokenizer")
    save_t5_tokenizer(folder / "tokenizer_2")
    shift = {"shift": 3.0 if guided else 1.0, "use_dynamic_shifting": guided, **DYNAMIC}
    save_scheduler(folder, _class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, **shift)
    save_model_index(folder, _class_name="FluxPipeline")
    return str(folder)


def save_sana(folder: Path) -> str:
    """As ``Efficient-Large-Model/Sana_1600M_1024px_diffusers``: sides are multiples of 4 pixels."""
    from diffusers import AutoencoderDC, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    transformer = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        mlp_ratio=2.5,
        sample_size=8,
        patch_size=1,
    )
    transformer.save_pretrained(folder / "transformer")
    levels: dict[str, Any] = {
        "in_channels": 3,
        "latent_channels": 8,
        "attention_head_dim": 2,
        "scaling_factor": 0.41407,
    }
    for side in ("encoder", "decoder"):
        levels |= {
            f"{side}_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
            f"{side}_block_out_channels": (4, 8, 8),
            f"{side}_qkv_multiscales": ((), (), (5,)),
        }
    levels |= {"encoder_layers_per_block": (1, 1, 1), "decoder_layers_per_block": (1, 1, 1)}
    AutoencoderDC(**levels, downsample_block_type="Conv", upsample_block_type="interpolate").save_pretrained(
        folder / "vae"
    )
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 4, "sliding_window": 512}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    Gemma2Model(Gemma2Config(vocab_size=len(GEMMA_WORDS), **sizes, **heads, **ends)).save_pretrained(
        folder / "text_encoder"
    )
    save_gemma_tokenizer(folder / "tokenizer")
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    save_scheduler(folder, _class_name="DPMSolverMultistepScheduler", num_train_timesteps=1000, **flow)
    save_model_index(folder, _class_name="SanaPipeline")
    return str(folder)


def save_gemma_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, processors

    folder.mkdir(parents=True)
    vocabulary = {word: number for number, word in enumerate(GEMMA_WORDS)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    made.save(str(folder / "tokenizer.json"))
    ends = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    options = {"tokenizer_class": "GemmaTokenizer", "model_max_length": 1000, "add_bos_token": True, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


SAVED: dict[str, Callable[[Path], str]] = {
    "sdxl": save_sdxl,
    "sd3": save_sd3,
    "flux": save_flux,
    "sana": save_sana,
}


def save_pipeline(kind: str, folder: Path, seed: int = 0, **options: Any) -> str:
    """A pipeline for the prior of that name; returns the folder's name."""
    with torch.random.fork_rng(devices=[]), quiet(), without_bars():
        torch.manual_seed(seed)
        return SAVED[kind](folder, **options)
