"""A latent flow-matching model, Esser et al. 2024 (Stable Diffusion 3 and 3.5), loaded through diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscx.errors import PscxError
from pscx.priors.base import PRIORS
from pscx.priors.flow_schedules import flow_of
from pscx.priors.latent import LatentOptions, LatentPrior
from pscx.priors.parts import Layout, parts_at
from pscx.priors.sdxl import penultimate
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.texts import Text, Texts, check_vocabulary, tokens_of

LAYOUT = Layout(
    "Stable Diffusion 3",
    "sd3",
    {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5TokenizerFast",
    },
    optional=("text_encoder_3", "tokenizer_3"),
)
TOKENS = 256  # of T5 that a prompt has
WIDTHS = 21  # of hidden states that the network holds for each token, measured at the width of 3.5 medium


@PRIORS.register("sd3")
class SD3(LatentPrior):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024): flow matching of latents of 16 channels, by a transformer.

    The signal is ``scaling_factor (z - shift_factor)`` of the autoencoder's mean ``z``, ``(batch, 16, height / 8,
    width / 8)``. Guidance and caption are those of :class:`pscx.priors.stable_diffusion.StableDiffusion`. Steps of
    ``linear`` spacing follow the schedule's ``shift``. The text encoder T5 (``text_encoder_3/``) may be missing, as
    the authors allow: zeros stand for its answer.

    Args:
        path: a local folder or a hub id, in the layout of ``StableDiffusion3Pipeline``; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``. The solver around them is float64.
        guidance: weight of a caption, at least 0; 1 is the model's own conditional distribution.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.
        offload: keep text encoders on the CPU but while they encode a caption, for less memory of an accelerator.
        speed: what makes the denoiser faster (:class:`pscx.priors.speed.Speed`), or none.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range.
    """

    references = ("esser2024sd3", "lipman2023flow", "ho2022guidance")
    signal = "latents"

    def __init__(
        self,
        path: str = "stabilityai/stable-diffusion-3.5-medium",
        dtype: Format = "fp32",
        guidance: float = 4.5,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: bool = False,
        speed: Speed | None = None,
    ) -> None:
        options = LatentOptions(dtype, guidance, vae_slicing, vae_tiling, offload, speed)
        number = dtype_of(dtype)
        with parts_at(path, LAYOUT) as parts:
            flow = flow_of(parts.schedule)
            transformer, vae = parts.network("transformer", number), parts.network("vae")
            check_channels(transformer.config.in_channels, vae)
            long = parts.has("text_encoder_3")
            texts = ThreeTexts(
                [parts.tokenizer("tokenizer"), parts.tokenizer("tokenizer_2")],
                [parts.text_encoder("text_encoder", number), parts.text_encoder("text_encoder_2", number)],
                (parts.tokenizer("tokenizer_3"), parts.text_encoder("text_encoder_3", number)) if long else None,
                width=transformer.config.joint_attention_dim,
            )
            texts.check(transformer.config.pooled_projection_dim)
        super().__init__(transformer, vae, texts, flow, options, upcast=bool(vae.config.force_upcast))
        self.stride = self.autoencoder.factor * transformer.config.patch_size

    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        output: Tensor = self.network(x, timestep=times, **text).sample
        return output

    def activations(self, height: int, width: int) -> int:
        config = self.network.config
        tokens = height * width // config.patch_size**2 + self.empty["encoder_hidden_states"].shape[1]
        return WIDTHS * int(config.num_attention_heads * config.attention_head_dim * tokens)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Raises :class:`PscxError` for an image beyond the network's table of positions."""
        config = self.network.config
        longest = (config.pos_embed_max_size or config.sample_size) * self.stride
        if max(height, width) > longest:
            raise PscxError(f"the prior knows places in images of up to {longest} pixels a side, got {width}x{height}")
        return super().signal_shape(height, width)


class ThreeTexts(Texts):
    """Tokens of two CLIP encoders side by side, then those of T5, all of one width; pooled embeddings side by side.

    Args:
        tokenizers: of the two CLIP encoders.
        encoders: they project their pooled embeddings.
        t5: tokenizer and encoder, or none.
        width: of each token.
    """

    def __init__(self, tokenizers: list[Any], encoders: list[Any], t5: tuple[Any, Any] | None, width: int) -> None:
        super().__init__()
        for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
            check_vocabulary(tokenizer, encoder)
        self.tokenizers, self.width = tokenizers, width
        self.encoders: Any = nn.ModuleList(encoders)
        self.long_tokenizer: Any
        self.long_encoder: Any
        self.long_tokenizer, self.long_encoder = t5 or (None, None)

    def check(self, pooled: int) -> None:
        """Raise ``ValueError`` where the encoders do not fit the transformer's widths."""
        if self.long_encoder is not None:
            check_t5(self.long_tokenizer, self.long_encoder, self.width)
        found = sum(encoder.config.projection_dim for encoder in self.encoders)
        if found != pooled:
            raise ValueError(f"transformer.pooled_projection_dim must be the text encoders' {found}, got {pooled}")

    def forward(self, prompt: str) -> Text:
        hidden, pooled = penultimate(self.tokenizers, self.encoders, prompt, cut=self.long_encoder is not None)
        short = torch.cat(hidden, -1)
        short = functional.pad(short, (0, self.width - short.shape[-1]))
        if self.long_encoder is None:
            long = short.new_zeros(1, TOKENS, self.width)
        else:
            long = t5_states(self.long_tokenizer, self.long_encoder, prompt, TOKENS).to(short)
        return {"encoder_hidden_states": torch.cat([short, long], 1), "pooled_projections": torch.cat(pooled, -1)}


def t5_states(tokenizer: Any, encoder: Any, prompt: str, longest: int) -> Tensor:
    """What T5 (Raffel et al. 2020) makes of a prompt, ``(1, longest, width)``: no attention mask, as published."""
    ids = tokens_of(tokenizer, prompt, longest).input_ids
    hidden: Tensor = encoder(torch.tensor([ids], device=encoder.device))[0]
    return hidden


def check_t5(tokenizer: Any, encoder: Any, width: int) -> None:
    """Raise ``ValueError`` where T5's width is not the transformer's, or it knows too few tokens."""
    check_vocabulary(tokenizer, encoder, "text encoder T5")
    if encoder.config.d_model != width:
        raise ValueError(f"transformer.joint_attention_dim must be T5's {encoder.config.d_model}, got {width}")


def check_channels(channels: int, vae: Any, packed: int = 1) -> None:
    """Raise ``ValueError`` where a transformer does not take the autoencoder's channels, ``packed`` of each."""
    wanted = vae.config.latent_channels * packed
    if channels != wanted:
        raise ValueError(f"transformer.in_channels must be {wanted}, as the autoencoder's latents, got {channels}")
