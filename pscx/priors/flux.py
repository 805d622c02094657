"""A latent flow-matching model, Black Forest Labs 2024 (Flux.1), loaded through diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pscx.priors.base import PRIORS
from pscx.priors.distilled import tell_of
from pscx.priors.flow_schedules import TIMES, flow_of
from pscx.priors.latent import LatentOptions, LatentPrior
from pscx.priors.parts import Layout, parts_at
from pscx.priors.sd3 import check_channels, check_t5, t5_states
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.texts import Text, Texts, check_vocabulary, clip_ids

LAYOUT = Layout(
    "Flux",
    "flux",
    {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5TokenizerFast",
    },
)
TOKENS = 512  # of T5 that a prompt has
PATCH = 2  # latent pixels on a side of a token
WIDTHS = 12  # of hidden states that the network holds for each token, measured at the published width


@PRIORS.register("flux")
class Flux(LatentPrior):
    """Flux.1 (Black Forest Labs 2024): flow matching of latents of 16 channels, by a transformer.

    The signal is ``scaling_factor (z - shift_factor)`` of the autoencoder's mean ``z``, ``(batch, 16, height / 8,
    width / 8)``; the network sees it in pieces of 2x2. The model ``dev`` is told the guidance, so a caption costs no
    second evaluation; without a caption it is told 1, which is none. The model ``schnell`` was distilled to a few
    steps: a sentence says that it gives no posterior mean. Steps of ``linear`` spacing follow the schedule's shift for
    images of 1024x1024.

    Args:
        path: a local folder or a hub id, in the layout of ``FluxPipeline``; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``. The solver around them is float64.
        guidance: weight of a caption, at least 0. A model that is told no guidance evaluates twice, unless it is 1.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.
        offload: keep text encoders on the CPU but while they encode a caption, for less memory of an accelerator.
        speed: what makes the denoiser faster (:class:`pscx.priors.speed.Speed`), or none.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range.
    """

    references = ("labs2024flux", "lipman2023flow")
    signal = "latents"

    def __init__(
        self,
        path: str = "black-forest-labs/FLUX.1-dev",
        dtype: Format = "fp32",
        guidance: float = 3.5,
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
            check_channels(transformer.config.in_channels, vae, PATCH**2)
            texts = PooledAndT5(
                (parts.tokenizer("tokenizer"), parts.text_encoder("text_encoder", number)),
                (parts.tokenizer("tokenizer_2"), parts.text_encoder("text_encoder_2", number)),
            )
            texts.check(transformer.config)
        self.guided_inside = bool(transformer.config.guidance_embeds)
        self.posterior_mean = self.guided_inside or bool(parts.schedule.get("use_dynamic_shifting"))
        super().__init__(transformer, vae, texts, flow, options, upcast=bool(vae.config.force_upcast))
        if not self.posterior_mean:
            tell_of(path, "its network is told no guidance, and its schedule is not shifted: as FLUX.1-schnell")
        self.stride = self.autoencoder.factor * PATCH

    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        height, width = (side // PATCH for side in x.shape[-2:])
        told = 1.0 if self.caption is None else self.guidance
        hidden = text["encoder_hidden_states"]
        answer = self.network(
            packed(x),
            timestep=times / TIMES,
            guidance=torch.full_like(times, told) if self.guided_inside else None,
            img_ids=places(height, width, x.device),
            txt_ids=torch.zeros(hidden.shape[1], 3, device=x.device),
            **text,
        ).sample
        return unpacked(answer, height, width)

    def activations(self, height: int, width: int) -> int:
        config = self.network.config
        tokens = height * width // PATCH**2 + TOKENS
        return WIDTHS * int(config.num_attention_heads * config.attention_head_dim * tokens)


class PooledAndT5(Texts):
    """The pooled embedding of CLIP, and all tokens of T5.

    Args:
        clip: tokenizer and encoder.
        t5: tokenizer and encoder.
    """

    def __init__(self, clip: tuple[Any, Any], t5: tuple[Any, Any]) -> None:
        super().__init__()
        self.tokenizer, self.encoder = clip
        self.long_tokenizer, self.long_encoder = t5

    def check(self, config: Any) -> None:
        """Raise ``ValueError`` where the encoders do not fit the transformer's widths."""
        check_vocabulary(self.tokenizer, self.encoder)
        check_t5(self.long_tokenizer, self.long_encoder, config.joint_attention_dim)
        width = self.encoder.config.hidden_size
        if config.pooled_projection_dim != width:
            raise ValueError(
                f"transformer.pooled_projection_dim must be the text encoder's {width}, got "
                f"{config.pooled_projection_dim}"
            )

    def forward(self, prompt: str) -> Text:
        pooled = self.encoder(clip_ids(self.tokenizer, self.encoder, prompt, cut=True)).pooler_output
        hidden = t5_states(self.long_tokenizer, self.long_encoder, prompt, TOKENS)
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}


def packed(x: Tensor) -> Tensor:
    """Latents ``(batch, channels, height, width)`` as tokens of 2x2, ``(batch, height width / 4, 4 channels)``."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`packed`; sides in tokens."""
    x = tokens.reshape(len(tokens), height, width, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(len(tokens), -1, height * PATCH, width * PATCH)


def places(height: int, width: int, device: torch.device) -> Tensor:
    """Where each token is, ``(height width, 3)``: zero, row and column."""
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, device=device, dtype=torch.float32)[None].expand(height, width)
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
