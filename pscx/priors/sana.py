"""A latent flow-matching model, Xie et al. 2025 (Sana), loaded through diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pscx.priors.base import PRIORS
from pscx.priors.flow_schedules import flow_of
from pscx.priors.latent import LatentOptions, LatentPrior
from pscx.priors.parts import Layout, parts_at
from pscx.priors.sd3 import check_channels
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.texts import Text, Texts, check_vocabulary, tokens_of

LAYOUT = Layout(
    "Sana",
    "sana",
    {
        "transformer": "SanaTransformer2DModel",
        "vae": "AutoencoderDC",
        "text_encoder": "Gemma2Model",
        "tokenizer": "GemmaTokenizerFast",
    },
)
TOKENS = 300  # of a prompt
WIDTHS = 14  # of hidden states that the network holds for each token, measured at the published width


@PRIORS.register("sana")
class Sana(LatentPrior):
    """Sana (Xie et al. 2025): flow matching of latents of 32 channels at 1/32 of the side, by a linear transformer.

    The signal is ``scaling_factor z`` of what the autoencoder's encoder says (DC-AE, Chen et al. 2025), ``(batch, 32,
    height / 32, width / 32)``. Guidance and caption are those of
    :class:`pscx.priors.stable_diffusion.StableDiffusion`. A caption goes to the text encoder as it is, in lower case,
    without the instruction to enhance it that Sana's own pipeline puts before it.

    Args:
        path: a local folder or a hub id, in the layout of ``SanaPipeline``; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``. The solver around them is float64.
        guidance: weight of a caption, at least 0; 1 is the model's own conditional distribution.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.
        offload: keep the text encoder on the CPU but while it encodes a caption, for less memory of an accelerator.
        speed: what makes the denoiser faster (:class:`pscx.priors.speed.Speed`), or none.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range.
    """

    references = ("xie2025sana", "chen2025dcae", "lipman2023flow", "ho2022guidance")
    signal = "latents"

    def __init__(
        self,
        path: str = "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
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
            texts = GemmaText(parts.tokenizer("tokenizer"), parts.text_encoder("text_encoder", number))
            texts.check(transformer.config.caption_channels)
        super().__init__(transformer, vae, texts, flow, options, upcast=True)
        self.stride = self.autoencoder.factor * transformer.config.patch_size

    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        scale = self.network.config.get("timestep_scale", 1.0)
        output: Tensor = self.network(x, timestep=times * scale, **text).sample
        return output[:, : x.shape[1]]  # twice as many channels where the variance was learned, which is not used

    def activations(self, height: int, width: int) -> int:
        config = self.network.config
        tokens = height * width // config.patch_size**2 + TOKENS
        return WIDTHS * int(config.num_attention_heads * config.attention_head_dim * tokens)


class GemmaText(Texts):
    """All tokens of Gemma 2, and which of them are of the prompt."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        super().__init__()
        check_vocabulary(tokenizer, encoder)
        self.tokenizer, self.encoder = tokenizer, encoder
        self.tokenizer.padding_side = "right"

    def check(self, width: int) -> None:
        """Raise ``ValueError`` where the encoder does not fit the transformer's width."""
        own = self.encoder.config.hidden_size
        if width != own:
            raise ValueError(f"transformer.caption_channels must be the text encoder's {own}, got {width}")

    def forward(self, prompt: str) -> Text:
        found = tokens_of(self.tokenizer, prompt.lower().strip(), TOKENS)
        ids, mask = (torch.tensor([row], device=self.encoder.device) for row in (found.input_ids, found.attention_mask))
        return {"encoder_hidden_states": self.encoder(ids, attention_mask=mask)[0], "encoder_attention_mask": mask}
