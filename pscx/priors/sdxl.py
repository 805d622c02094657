"""A latent diffusion model, Podell et al. 2024 (SDXL), loaded through diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pscx.exact import ExactSizes
from pscx.priors.base import PRIORS
from pscx.priors.latent import LatentOptions
from pscx.priors.parts import Layout, parts_at
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.stable_diffusion import check_unet
from pscx.priors.texts import Text, Texts, check_vocabulary, clip_ids
from pscx.priors.unet_latents import UNetLatents, diffusion_of

LAYOUT = Layout(
    "SDXL",
    "sdxl",
    {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
    },
    single=True,
)
HEIGHTS, WIDTHS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@PRIORS.register("sdxl")
class SDXL(UNetLatents):
    """SDXL (Podell et al. 2024): latent diffusion under two text encoders and the sizes of the image.

    The signal is the latent, ``(batch, 4, height / 8, width / 8)``, as of
    :class:`pscx.priors.stable_diffusion.StableDiffusion`, and so are guidance and caption. The network is also told the
    second encoder's pooled embedding, and that the image was never another size nor cropped (section 2.2 there). The
    empty prompt is all zeros where the model was trained so (``force_zeros_for_empty_prompt``).

    A model that was distilled to a few steps (SDXL-Turbo, SDXL-Lightning) loads as in
    :class:`pscx.priors.stable_diffusion.StableDiffusion`; one that is told the guidance is refused.

    The published autoencoder overflows in float16. It stays in float32 there, unless its configuration says
    ``"force_upcast": false``, as that of the fixed autoencoder does (put it into ``vae/``).

    Args:
        path: a local folder or a hub id, in the layout of ``StableDiffusionXLPipeline``, or a single file with all
            weights; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``; ``fp32`` where ``exact`` is true. The
            solver around them is float64.
        guidance: weight of a caption, at least 0; 1 is the model's own conditional distribution.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.
        offload: keep text encoders on the CPU but while they encode a caption, for less memory of an accelerator.
        speed: what makes the denoiser faster (:class:`pscx.priors.speed.Speed`), or none; none where ``exact`` is true.
        exact: denoise and encode captions with :mod:`pscx.exact`: the same latents on every machine, for networks whose
            every part has an exact form (``docs/exactness.md``). The autoencoder stays in floating point.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range, or the network predicts something else, or a part or the schedule has no
            exact form; or ``dtype`` or ``speed`` is of no use.
        PscxError: ``exact`` on a machine whose convolutions or products of integers are not exact, as torch is set up.
    """

    references = ("podell2024sdxl", "ho2022guidance")
    signal = "latents"

    def __init__(
        self,
        path: str = "stabilityai/stable-diffusion-xl-base-1.0",
        dtype: Format = "fp32",
        guidance: float = 5.0,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: bool = False,
        speed: Speed | None = None,
        exact: bool = False,
    ) -> None:
        options = LatentOptions(dtype, guidance, vae_slicing, vae_tiling, offload, speed, exact)
        number = dtype_of(dtype)
        with parts_at(path, LAYOUT) as parts:
            unet, vae = parts.network("unet", number), parts.network("vae")
            texts = TwoClipTexts(
                [parts.tokenizer("tokenizer"), parts.tokenizer("tokenizer_2")],
                [parts.text_encoder("text_encoder", number), parts.text_encoder("text_encoder_2", number)],
                zeros=bool(parts.index.get("force_zeros_for_empty_prompt", True)),
            )
            check_unet(unet, vae, texts.width)
            check_sizes(unet, texts.pooled_width)
            diffusion = diffusion_of(parts, unet)
        if exact:
            unet.add_time_proj = ExactSizes(unet.add_time_proj)
        super().__init__(path, unet, vae, texts, diffusion, options, upcast=bool(vae.config.force_upcast))
        self.heights: Tensor
        self.widths: Tensor
        self.register_buffer("heights", torch.tensor(HEIGHTS), persistent=False)
        self.register_buffer("widths", torch.tensor(WIDTHS), persistent=False)

    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        height, width = (side * self.autoencoder.factor for side in x.shape[-2:])
        sizes = self.heights.float() * height + self.widths.float() * width
        if self.exact:  # its embedding is told whole numbers
            sizes = sizes.long()
        added = {"text_embeds": text["text_embeds"], "time_ids": sizes.expand(len(x), -1)}
        hidden = text["encoder_hidden_states"]
        output: Tensor = self.network(x, times, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
        return output


class TwoClipTexts(Texts):
    """The last hidden states but one of two text encoders, side by side, and the second's pooled embedding.

    Args:
        tokenizers: of each encoder.
        encoders: the second one projects its pooled embedding.
        zeros: whether the empty prompt is all zeros.
    """

    def __init__(self, tokenizers: list[Any], encoders: list[Any], zeros: bool) -> None:
        super().__init__()
        for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
            check_vocabulary(tokenizer, encoder)
        self.tokenizers, self.zeros = tokenizers, zeros
        self.encoders: Any = nn.ModuleList(encoders)

    @property
    def width(self) -> int:
        return sum(encoder.config.hidden_size for encoder in self.encoders)

    @property
    def pooled_width(self) -> int:
        return int(self.encoders[1].config.projection_dim)

    def forward(self, prompt: str) -> Text:
        hidden, pooled = penultimate(self.tokenizers, self.encoders, prompt)
        return {"encoder_hidden_states": torch.cat(hidden, -1), "text_embeds": pooled[-1]}

    def empty(self) -> Text:
        found: Text = self("")
        return {name: torch.zeros_like(tensor) for name, tensor in found.items()} if self.zeros else found


def penultimate(
    tokenizers: list[Any], encoders: Any, prompt: str, *, cut: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states of the last layer but one, ``(1, tokens, width)``, and the first answer of each CLIP encoder.

    That answer is the pooled, projected embedding ``(1, width)`` of an encoder that has one.
    """
    hidden, pooled = [], []
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        found = encoder(clip_ids(tokenizer, encoder, prompt, cut=cut), output_hidden_states=True)
        hidden.append(found.hidden_states[-2])
        pooled.append(found[0])
    return hidden, pooled


def check_sizes(unet: Any, pooled: int) -> None:
    """Raise ``ValueError`` where the network is not told a pooled embedding and six sizes, as SDXL's base model."""
    if unet.config.get("time_cond_proj_dim") is not None:
        raise ValueError("unet.time_cond_proj_dim must be null: of latent consistency models those of SD 1.x are read")
    inputs = unet.config.projection_class_embeddings_input_dim
    wanted = pooled + len(HEIGHTS) * (unet.config.addition_time_embed_dim or 0)
    if inputs != wanted:
        raise ValueError(
            f"unet.projection_class_embeddings_input_dim must be {wanted}, of a pooled embedding of {pooled} and six "
            f"sizes, got {inputs}"
        )
