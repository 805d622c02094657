"""Weights of eight bits for a trained pixel-space prior."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from pscx.exact.convolution import BYTE, whole_weights
from pscx.networks.whole_weights import TOP, output_axis, set_whole
from pscx.priors.ddpm import EMBEDDED
from pscx.priors.denoiser import PixelDenoiser, load_denoiser
from pscx.priors.schedules import lognormal_weights
from pscx.training.over_images import show
from pscx.training.second_order import round_weights

Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.5)
PIXELS = 1 << 12  # positions of an image that are looked at, at most: neighbours tell little more


class QuantizeWeights(LightningModule):
    """Round the weights of a prior's convolutions to eight bits, so that its answers change least.

    Batches of crops with noise go through the network, and the second moments of what each convolution is given are
    summed. At the end each is rounded by :func:`pscx.training.second_order.round_weights` (Frantar et al. 2023), with
    one scale for each output channel; a layer that no crop went through, such as those of an expert for other noise
    levels, is rounded to the nearest integers. The prior is written as ``prior/`` under the trainer's
    ``default_root_dir``: its weights are int8 there, in exact arithmetic and in floating point alike. A table of PSNR
    before and after, on the crops of ``data.val_root``, is printed.

    Args:
        prior: ``embedded``, or the folder of a saved prior of :class:`pscx.networks.ResidualUNet` or
            :class:`pscx.networks.NoiseExperts`.
        noise_center: median noise level of the draws, units of an image in [-1, 1].
        noise_spread: standard deviation of the natural logarithm of the noise level.

    Raises:
        ValueError: an option is out of range.
        FileNotFoundError: no prior is at ``prior``.
    """

    references = ("frantar2023gptq",)

    def __init__(self, prior: str = "embedded", noise_center: float = 0.15, noise_spread: float = 1.4) -> None:
        super().__init__()
        for name, value in (("noise_center", noise_center), ("noise_spread", noise_spread)):
            if not value > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        self.automatic_optimization = False
        self.denoiser: PixelDenoiser = load_denoiser(EMBEDDED if prior == "embedded" else prior).eval()
        self.levels = self.denoiser.parameterisation.levels
        self.weights = lognormal_weights(self.denoiser.alphas_cumprod, noise_center, noise_spread, 0.1).float()
        self.moments: dict[str, Tensor] = {}
        self.held_out: dict[int, Tensor] = {}
        self.hooks: list[RemovableHandle] = []

    def on_train_start(self) -> None:
        self.denoiser.eval().requires_grad_(False)
        for name, layer in convolutions(self.denoiser.network):  # all, in one order: ranks add theirs up one by one
            inputs = layer.in_channels if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0].numel()
            self.moments[name] = layer.weight.new_zeros(inputs, inputs)
            hook = layer.register_forward_pre_hook(lambda own, given, name=name: self.observe(name, own, given[0]))
            self.hooks.append(hook)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Crops ``(batch, 3, height, width)`` in [-1, 1], each at a noise level of its own."""
        draws = torch.Generator().manual_seed(batch_idx)
        for image in batch:
            level = float(self.levels[torch.multinomial(self.weights, 1, generator=draws)])
            noise = torch.randn(image.shape, generator=draws).to(image)
            self.denoiser.denoise((image + level * noise)[None], level)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Crops on which the prior is compared with its rounded self at the end."""
        self.held_out[batch_idx] = batch

    def observe(self, name: str, layer: Convolution, given: Tensor) -> None:
        """Add what a layer is given to its second moments."""
        columns = patches(layer, given)
        columns = columns[:, :: max(1, columns.shape[1] // PIXELS)]
        self.moments[name] += columns @ columns.T

    def on_train_end(self) -> None:
        for hook in self.hooks:
            hook.remove()
        if self.trainer.world_size > 1:
            for moments in self.moments.values():
                torch.distributed.all_reduce(moments)
        if self.trainer.is_global_zero:
            root = Path(self.trainer.default_root_dir)
            before = self.errors()
            for name, layer in convolutions(self.denoiser.network):
                quantize(layer, self.moments[name].cpu())
            self.denoiser.save(root / "prior")
            if self.held_out:
                show(comparison(before, self.errors()), root / "prior", 3)

    @torch.no_grad()
    def errors(self) -> list[float]:
        """Mean squared error at each of ``LEVELS`` over the crops that were held out."""
        found = []
        for level in LEVELS if self.held_out else ():
            draws, total, count = torch.Generator().manual_seed(0), 0.0, 0
            for image in self.held_out.values():
                noise = torch.randn(image.shape, generator=draws).to(image)
                total += float((self.denoiser.denoise(image + level * noise, level) - image).square().sum())
                count += image.numel()
            found.append(total / count)
        return found

    def configure_optimizers(self) -> None:
        """No optimizer: nothing is learnt by gradients."""


def comparison(before: list[float], after: list[float]) -> list[dict[str, Any]]:
    """PSNR at each of ``LEVELS`` from the mean squared errors of both, for images in [-1, 1]."""
    rows = zip(LEVELS, before, after, strict=True)
    names = ("noise level", "float", "rounded")
    return [dict(zip(names, (str(level), *(10 * log10(4 / e) for e in pair)), strict=True)) for level, *pair in rows]


def convolutions(network: nn.Module) -> Iterator[tuple[str, Convolution]]:
    """Every convolution of a network with its name."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            yield name, layer


def patches(layer: Convolution, given: Tensor) -> Tensor:
    """What each output of a layer is a product of: ``(n, positions)``, rows as the weights of an output are flattened.

    A transposed convolution, with a stride of its kernel's size, gives each position of the input outputs of its own.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return given.movedim(1, 0).flatten(1)
    size, stride, padding = layer.kernel_size, layer.stride, layer.padding
    assert not isinstance(padding, str)
    found: Tensor = functional.unfold(given, size, padding=padding, stride=stride)
    return found.movedim(1, 0).flatten(1)


def quantize(layer: Convolution, moments: Tensor) -> None:
    """Round the weights of a layer to integers within 127 times one scale for each output channel."""
    turned = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.detach().movedim(1, 0) if turned else layer.weight.detach()  # (out, in, height, width)
    scale = whole_weights(layer.weight.detach().double(), output_axis(layer), BYTE)[1].float()
    if turned:
        rows, each = weight.permute(0, 2, 3, 1), weight.shape[2] * weight.shape[3]
        whole = round_weights(rows.flatten(0, 2), scale.repeat_interleave(each), moments, TOP)
        whole = whole.reshape(rows.shape).permute(3, 0, 1, 2)
    else:
        whole = round_weights(weight.flatten(1), scale, moments, TOP).reshape(weight.shape)
    set_whole(layer, whole, scale)
