"""Training of a pixel-space DDPM prior: Ho et al. 2020, with the v target of Salimans and Ho 2022."""

from __future__ import annotations

import struct
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from diffusers import DDPMScheduler, UNet2DModel
from einops import rearrange
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from pscx.networks import NoiseExperts, ResidualUNet
from pscx.priors.denoiser import PixelDenoiser, load_denoiser
from pscx.priors.schedules import lognormal_weights, noise_levels
from pscx.training.muon import MuonAdamW, check_muon

Network: TypeAlias = UNet2DModel | ResidualUNet | NoiseExperts
OPTIMIZERS = ("muon", "adamw")
VALIDATION_LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 4.0)


class TrainDDPM(LightningModule):
    """Train ``network`` to denoise image crops at every noise level of ``scheduler``.

    The loss is the mean squared error of ``v = sqrt(a) noise - sqrt(1-a) x0`` (Salimans and Ho 2022, appendix D),
    each step ``t`` drawn with the probability of :func:`pscx.priors.schedules.lognormal_weights`.

    Args:
        network: over ``3 p^2`` channels (images are split by space-to-depth with factor ``p``): a diffusers
            ``UNet2DModel``, :class:`pscx.networks.ResidualUNet` or :class:`pscx.networks.NoiseExperts`.
        scheduler: the noise schedule; its prediction type must be ``v_prediction``.
        optimizer: ``muon`` (:class:`pscx.training.muon.MuonAdamW`) or ``adamw``.
        learning_rate: peak step size, over 0.
        warmup: optimizer steps of linear warm-up.
        decay: share of the run, in [0, 1], over which the step size falls linearly to zero at the end.
        noise_center: median noise level of the draws, units of an image in [-1, 1].
        noise_spread: standard deviation of the natural logarithm of the noise level.
        noise_uniform: share in [0, 1] of draws that are uniform over the steps.
        noise_range: lowest and highest noise level of the draws, or none for all; one expert of
            :class:`pscx.networks.NoiseExperts` is trained alone where the range lies on its side.
        init: folder of a saved prior whose weights start the training, or none. A ``ResidualUNet`` or ``NoiseExperts``
            may be wider and have other numbers of blocks (:meth:`pscx.networks.ResidualUNet.start_from`), one
            ``ResidualUNet`` starts both of ``NoiseExperts``, and a ``UNet2DModel`` must have the same layers.

    Raises:
        ValueError: an option is out of range, ``optimizer: muon`` with a torch before 2.9, or ``init`` and ``network``
            do not go together.
        FileNotFoundError: no prior is at ``init``.
    """

    references = ("ho2020ddpm", "salimans2022distillation", "karras2022edm")

    def __init__(
        self,
        network: Network,
        scheduler: DDPMScheduler,
        optimizer: Literal["muon", "adamw"] = "adamw",
        learning_rate: float = 6e-4,
        warmup: int = 500,
        decay: float = 0.25,
        noise_center: float = 0.15,
        noise_spread: float = 1.4,
        noise_uniform: float = 0.15,
        noise_range: tuple[float, float] | None = None,
        init: str | None = None,
    ) -> None:
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
        if optimizer == "muon":
            check_muon()
        if warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {warmup}")
        for name, value in (("decay", decay), ("noise_uniform", noise_uniform)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        positive = {"learning_rate": learning_rate, "noise_center": noise_center, "noise_spread": noise_spread}
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        if scheduler.config.prediction_type != "v_prediction":
            got = scheduler.config.prediction_type
            raise ValueError(f"scheduler.prediction_type must be 'v_prediction', got {got!r}")
        if init is not None:
            start(network, load_denoiser(init).network)
        self.prior = PixelDenoiser(network, scheduler)
        self.optimizer = optimizer
        self.learning_rate, self.warmup, self.decay = learning_rate, warmup, decay
        alphas = self.prior.alphas_cumprod
        self.weights: Tensor
        self.levels: Tensor
        self.register_buffer("levels", noise_levels(alphas), False)
        weights = lognormal_weights(alphas, noise_center, noise_spread, noise_uniform)
        if noise_range is not None:
            low, high = noise_range
            weights = weights * ((self.levels >= low) & (self.levels <= high))
            if not weights.sum() > 0:
                raise ValueError(f"noise_range must contain a noise level of the scheduler, got [{low}, {high}]")
        self.register_buffer("weights", weights, False)

    def v_loss(self, image: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of v for each image: ``(batch, 3, height, width)`` in [-1, 1] to ``(batch,)``."""
        a = rearrange(self.prior.alphas_cumprod[t].to(image.dtype), "b -> b 1 1 1")
        x_t = a.sqrt() * image + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * image
        return (self.prior.predict(x_t, t) - target).square().mean(dim=(1, 2, 3))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        draws = self.draws(batch_idx)
        t = torch.multinomial(self.weights.float().cpu(), len(batch), replacement=True, generator=draws)
        noise = torch.randn(batch.shape, generator=draws, dtype=batch.dtype).to(batch.device)
        loss = self.v_loss(batch, t.to(batch.device), noise).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def draws(self, batch_idx: int) -> torch.Generator:
        """Source of a batch's noise on any device: own in each process, and the same in a run that is resumed."""
        place = (torch.initial_seed(), self.global_rank, self.global_step, batch_idx)
        digest = sha256(struct.pack("<QQQQ", *place)).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        generator = torch.Generator().manual_seed(batch_idx)
        losses = []
        for level in VALIDATION_LEVELS:
            t = (self.levels - level).abs().argmin().expand(len(batch))
            noise = torch.randn(batch.shape, generator=generator).to(batch.device)
            losses.append(self.v_loss(batch, t, noise).mean())
            psnr = 10 * torch.log10(4 / (losses[-1] * (1 - self.prior.alphas_cumprod[t[0]])))
            self.log(f"val/loss_sigma_{level:g}", losses[-1], sync_dist=True, batch_size=len(batch))
            self.log(f"val/psnr_sigma_{level:g}", psnr, sync_dist=True, batch_size=len(batch))
        self.log("val/loss", torch.stack(losses).mean(), prog_bar=True, sync_dist=True, batch_size=len(batch))

    def on_validation_epoch_end(self) -> None:
        for logger in self.loggers:
            writer: Any = getattr(logger, "experiment", None)
            if hasattr(writer, "add_image"):
                writer.add_image("samples", self.sample_grid(), self.global_step)

    @torch.no_grad()
    def sample_grid(self, side: int = 4, size: int = 64, steps: int = 25) -> Tensor:
        """Unconditional DDIM samples (Song et al. 2021, Eq. 12, eta 0) as one picture ``(3, side*size, side*size)``.

        ``size`` is raised to the next multiple of the prior's stride.
        """
        size = -(-size // self.prior.stride) * self.prior.stride
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(side * side, 3, size, size, generator=generator).to(self.device)
        levels: list[float] = self.levels[torch.linspace(len(self.levels) - 1, 0, steps).long()].tolist()
        x = x * levels[0]
        for sigma, after in pairwise([*levels, 0.0]):
            x0 = self.prior.denoise(x, sigma).clamp(-1, 1)
            x = x0 + after / sigma * (x - x0)
        return rearrange(x.add(1).div(2).clamp(0, 1), "(r c) k h w -> k (r h) (c w)", r=side)

    def rate(self, step: int) -> float:
        """Share of ``learning_rate`` at an optimizer step: linear warm-up, constant, linear decay to zero."""
        total = float(self.trainer.estimated_stepping_batches)
        left = (total - step) / max(self.decay * total, 1)
        return min(1.0, (step + 1) / max(self.warmup, 1), max(left, 0.0))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        weights = list(self.prior.parameters())
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = MuonAdamW(weights, self.learning_rate, noisy=noisy_weights(self.prior.network))
        else:
            optimizer = torch.optim.AdamW(weights, self.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def noisy_weights(network: Network) -> list[Tensor]:
    """Weights whose gradient is mostly noise: those of all but the finest level, for networks of pscx."""
    if isinstance(network, NoiseExperts):
        return [*network.low.coarse_weights(), *network.high.coarse_weights()]
    return network.coarse_weights() if isinstance(network, ResidualUNet) else []


def start(network: Network, trained: Network) -> None:
    """Start ``network`` from a trained one: those of pscx by ``start_from``, a ``UNet2DModel`` from one of its layers.

    Raises:
        ValueError: their kinds or shapes do not go together.
    """
    if isinstance(trained, ResidualUNet) and isinstance(network, ResidualUNet | NoiseExperts):
        network.start_from(trained)
    elif isinstance(trained, UNet2DModel) and isinstance(network, UNet2DModel):
        shapes = [{key: tensor.shape for key, tensor in net.state_dict().items()} for net in (network, trained)]
        if shapes[0] != shapes[1]:
            raise ValueError("model.init: its UNet2DModel must have the layers of model.network, in the same shapes")
        network.load_state_dict(trained.state_dict())
    elif isinstance(trained, NoiseExperts) and isinstance(network, NoiseExperts):
        network.start_from(trained)
    else:
        kinds = type(network).__name__, type(trained).__name__
        raise ValueError(f"model.init: a {kinds[0]} cannot start from a {kinds[1]}")
