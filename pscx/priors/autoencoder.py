"""The autoencoder of a latent diffusion model, Rombach et al. 2022, section 3.1: images to signals and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pscx.priors.latents import latent_covariance

DECODER_MAPS = 9  # of as many channels as the finest level has, at the image's size: measured at the published widths


@dataclass(frozen=True)
class Autoencoder:
    """An ``AutoencoderKL`` or ``AutoencoderDC`` of diffusers, without draws: a signal is ``scale (z - shift)``.

    ``z`` is the mean of the encoder's distribution, or its answer where that is no distribution (DC-AE, Chen et al.
    2025). ``scale`` and ``shift`` are the model's ``scaling_factor`` and ``shift_factor``. Images are ``(batch, 3,
    height, width)`` in [-1, 1], signals ``(batch, channels, height / factor, width / factor)`` of about unit variance.

    Args:
        network: the autoencoder; it stays in the hands of the prior, which moves it.
        tiling: whether images beyond its own size go through it in tiles; :func:`with_options` turns that on.
    """

    network: Any
    tiling: bool = False

    @property
    def channels(self) -> int:
        return int(self.network.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels on a side that a latent pixel stands for."""
        return int(2 ** (len(self._widths) - 1))

    @property
    def scale(self) -> float:
        return float(self.network.config.scaling_factor)

    @property
    def shift(self) -> float:
        return float(self.network.config.get("shift_factor") or 0.0)

    def to_signal(self, image: Tensor) -> Tensor:
        """Dtype and device of ``image``."""
        found = self.network.encode(image.to(self.network.device, self.network.dtype))
        z: Tensor = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
        return (z.to(image) - self.shift) * self.scale

    def to_image(self, signal: Tensor) -> Tensor:
        """Dtype and device of ``signal``."""
        z = (signal / self.scale + self.shift).to(self.network.device, self.network.dtype)
        image: Tensor = self.network.decode(z).sample
        return image.to(signal)

    def signal_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self.channels, height // self.factor, width // self.factor

    def block_covariance(self, block: int) -> Tensor:
        return latent_covariance(self.channels, block)

    def memory(self, latents: int) -> int:
        """Bytes that decoding one image of so many latent pixels holds, where that is most."""
        pixels = latents * self.factor**2
        if self.tiling:
            pixels = min(pixels, self._tile**2)
        on_cpu = self.network.device.type == "cpu"
        number = 4 if on_cpu else self.network.dtype.itemsize  # a CPU's convolutions of halves keep copies in order
        return int(number * DECODER_MAPS * self._widths[0] * pixels)

    def facts(self) -> list[float]:
        """What signals depend on beside the weights."""
        return [self.tiling, self.scale, self.shift] if self.shift else [self.tiling, self.scale]

    @property
    def _widths(self) -> list[int]:
        """Channels of each level, the finest first."""
        config = self.network.config
        return list(config.get("block_out_channels") or config["decoder_block_out_channels"])

    @property
    def _tile(self) -> int:
        """Side of a tile in pixels."""
        tile = getattr(self.network, "tile_sample_min_size", None)
        return int(self.network.tile_sample_min_height if tile is None else tile)


def with_options(network: Any, dtype: torch.dtype, *, slicing: bool, tiling: bool) -> Autoencoder:
    """The autoencoder in a number format; images of a batch one by one with ``slicing``, in tiles with ``tiling``."""
    nn.Module.to(network, dtype)  # that of diffusers warns of layers that it keeps in float32, of which there are none
    if slicing:
        network.enable_slicing()
    if tiling:
        network.enable_tiling()
    return Autoencoder(network, tiling)
