"""A pixel-space diffusion model, Ho et al. 2020 (DDPM), loaded through diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pscx.exact import exactly, make_exact
from pscx.networks import NoiseExperts
from pscx.priors.base import NETWORK, PRIORS, Prior
from pscx.priors.edm_denoiser import EDMDenoiser, load_pixels
from pscx.priors.fingerprints import Fingerprint
from pscx.priors.photographs import photograph_covariance
from pscx.priors.schedules import PREDICTIONS
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.tiles import Tiles

EMBEDDED = Path(__file__).parent / "embedded"
PREDICTION = "v_prediction"  # what the fingerprint of a prior does not tell, because the embedded one has it
CALL = 1 << 18  # pixels of all samples that an exact network is given at once, unless one sample has more


@PRIORS.register("ddpm")
class DDPM(Prior):
    """Pixel-space DDPM (Ho et al. 2020): a network of pixels and its noise schedule.

    A network over ``3 p^2`` channels sees the image through space-to-depth with factor ``p``, so one of 12 channels
    works at half resolution. The signal is the image itself, ``(batch, 3, height, width)`` in [-1, 1]. One with a side
    over 1024 pixels is denoised in overlapping tiles (:class:`pscx.priors.tiles.Tiles`).

    Args:
        path: ``embedded`` for the prior that ships with pscx, else a local folder or a hub id, in the layout of
            ``DDPMPipeline`` (``unet/`` and ``scheduler/``) or with both configs at its root. Networks of ADM (Dhariwal
            and Nichol 2021) and EDM (Karras et al. 2022) are converted to that (:mod:`pscx.priors.conversion`).
        exact: compute with :mod:`pscx.exact`: the same bits on every machine, with integer instructions where the
            processor has them; for a network whose every part has an exact form (``docs/exactness.md``).
        dtype: number format of the network: ``fp32``, ``fp16`` or ``bf16``; ``fp32`` where ``exact`` is true.
        speed: what makes the network faster (:class:`pscx.priors.speed.Speed`), or none; none where ``exact`` is true.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: the network's channels or its prediction type are not supported, or a part of it, or EDM's noise
            levels, have no exact form; or ``dtype`` or ``speed`` is of no use.
        PscxError: ``exact`` on a machine whose convolutions or products of integers are not exact, as torch is set up.
    """

    references = ("ho2020ddpm",)

    tiles = Tiles()

    implied: ClassVar[Mapping[str, Any]] = {"dtype": "fp32"}

    def __init__(
        self, path: str = "embedded", exact: bool = False, dtype: Format = "fp32", speed: Speed | None = None
    ) -> None:
        super().__init__()
        if exact and dtype != "fp32":
            raise ValueError(f"prior.dtype must be fp32: prior.exact is true, got {dtype}")
        self.denoiser = load_pixels(EMBEDDED if path == "embedded" else path).eval().requires_grad_(False)
        self.continuous = self.denoiser.parameterisation.continuous
        self.exact, self._fingerprint = exact, Fingerprint()
        if exact and isinstance(self.denoiser, EDMDenoiser):
            raise ValueError("prior.exact must be false: the network is told any noise level, as EDM's are")
        if exact:
            make_exact(self.denoiser.network, steps=len(self.denoiser.parameterisation.levels))
        else:
            nn.Module.to(self.denoiser.network, dtype_of(dtype))
        self.hasten(speed)
        self.stride = self.denoiser.stride
        self.levels = self.denoiser.parameterisation.levels

    @property
    def denoisers(self) -> list[nn.Module]:
        network = self.denoiser.network
        return [network.low, network.high] if isinstance(network, NoiseExperts) else [network]

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        with exactly(self.device, self.denoiser.network.dtype) if self.exact else self.running():
            return self.tiles.denoise(lambda part: self._denoise(part, sigma), x, self.stride)

    def _denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Without tiles; samples go through an exact network a few at a time where they are large."""
        size = self._samples(x.shape[-2] * x.shape[-1], len(x))
        if size == len(x):
            return self.denoiser.denoise(x, sigma)
        return torch.cat([self.denoiser.denoise(part, sigma) for part in torch.split(x, size)])

    def _samples(self, pixels: int, batch: int) -> int:
        """How many of ``batch`` samples of so many pixels one call takes: all, or fewer where that changes no bit."""
        return min(batch, max(1, CALL // pixels)) if self.exact else batch

    def memory(self, shape: tuple[int, ...], batch: int) -> int:
        pixels = self.tiles.largest(shape[-2], shape[-1], self.stride)
        size: int = self.denoiser.network.dtype.itemsize  # where NETWORK counts four bytes a number
        return NETWORK * size // 4 * shape[0] * pixels * self._samples(pixels, batch)

    def to_signal(self, image: Tensor) -> Tensor:
        return image

    def to_image(self, signal: Tensor) -> Tensor:
        return signal

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height, width)

    def block_covariance(self, block: int) -> Tensor:
        return photograph_covariance(block)

    def fingerprint(self) -> bytes:
        network = self.denoiser.network
        weights = [*network.state_dict(keep_vars=True).values(), self.levels, self.denoiser.conditions]
        others = [torch.tensor(network.border, dtype=torch.float64)] if isinstance(network, NoiseExperts) else []
        if self.denoiser.prediction != PREDICTION:
            others.append(torch.tensor([*PREDICTIONS, EDMDenoiser.prediction].index(self.denoiser.prediction)))
        return self._fingerprint.of(weights, others)
