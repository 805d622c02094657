"""A diffusers network and its noise schedule as one denoiser of pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.whole_weights import keep_scales
from pscx.priors.families import check_family
from pscx.priors.parameterisations import VariancePreserving
from pscx.priors.schedules import Scheduler, load_scheduler, log_levels, noise_levels, prediction_of, signal_shares
from pscx.runtime.hub import check_variant, local_folder, whole
from pscx.runtime.quiet import importing, quiet
from pscx.runtime.safe_yaml import read_json

if TYPE_CHECKING:
    from diffusers import UNet2DModel

Network: TypeAlias = Union[ResidualUNet, NoiseExperts, "UNet2DModel"]
BY_LOG_LEVEL = (ResidualUNet, NoiseExperts)
OWN = {kind.__name__: kind for kind in BY_LOG_LEVEL}
T = TypeVar("T")
CONFIGS = ("config.json", "scheduler_config.json", "unet/config.json", "scheduler/scheduler_config.json")


class PixelDenoiser(nn.Module):
    """A network behind space-to-depth, turned into ``E[x0 | x]`` whatever it predicts.

    Args:
        network: takes ``3 p^2`` channels for an integer ``p >= 1`` and gives as many, or twice as many where it also
            learned the variance (Nichol and Dhariwal 2021), which is not used.
        scheduler: holds the noise schedule and the prediction type.
    """

    def __init__(self, network: Network, scheduler: Scheduler) -> None:
        super().__init__()
        patch = patch_of(network)
        self.prediction = prediction_of(scheduler)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scheduler = scheduler
        self.patch = patch
        self.stride = patch * 2 ** (len(network.config.block_out_channels) - 1)
        self.alphas_cumprod: Tensor
        self.register_buffer("alphas_cumprod", signal_shares(scheduler), persistent=False)
        self.parameterisation = VariancePreserving(noise_levels(self.alphas_cumprod), self.prediction)
        self.conditions: Tensor
        steps = torch.arange(len(self.alphas_cumprod))
        conditions = log_levels(self.alphas_cumprod) if isinstance(network, BY_LOG_LEVEL) else steps
        self.register_buffer("conditions", conditions, persistent=False)
        self.told: list[float] = conditions.tolist()  # the same, so that no device is asked for them

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PixelDenoiser:
        """What moves or converts a module; the schedule is only moved, because in half precision it is another one."""
        before = {name: getattr(self, name) for name in ("alphas_cumprod", "conditions")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in before.items():
            setattr(self, name, tensor.to(getattr(self, name).device))
        return self

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's own output: ``(batch, 3, height, width)`` in the noise schedule's scale, ``t`` ``(batch,)``."""
        return through(self.network, self.patch, x_t, self.conditions[t])

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x]`` for ``x = x0 + sigma z``, shape and dtype of ``x``."""
        return self.parameterisation.denoise(self._output, x, sigma)

    def _output(self, x_t: Tensor, t: float) -> Tensor:
        """:meth:`predict` at one step, computed where the network is; dtype and device of ``x_t``."""
        condition = self.told[int(t)]
        network = self.network.expert(condition) if isinstance(self.network, NoiseExperts) else self.network
        x = x_t.to(self.conditions.device, self.network.dtype)
        conditions = torch.full((len(x),), condition, dtype=self.conditions.dtype, device=x.device)
        return through(network, self.patch, x, conditions).to(x_t)

    def save(self, folder: Path) -> None:
        """Write the present weights as float16 safetensors, in the layout of a diffusers ``DDPMPipeline``.

        Weights that are whole numbers times a scale stay so (:meth:`pscx.networks.Network.save_pretrained`).
        """
        options = {key: value for key, value in self.network.config.items() if not key.startswith("_")}
        half = type(self.network).from_config(options)
        half.load_state_dict(self.network.state_dict())
        if isinstance(half, BY_LOG_LEVEL):
            keep_scales(half, self.network)
            half.save_pretrained(folder / "unet", torch.float16)
        else:
            half.half().save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")


def patch_of(network: Network) -> int:
    """``p`` of a network over ``3 p^2`` channels. Raises ``ValueError`` for other channels."""
    channels = int(network.config.in_channels)
    patch: int = round((channels / 3) ** 0.5)
    if patch < 1 or channels != 3 * patch**2:
        raise ValueError(f"network.in_channels must be 3, 12, 27 or another 3 p^2, got {channels}")
    if network.config.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"network.out_channels must be {channels} as in_channels, or twice as many, got "
            f"{network.config.out_channels}"
        )
    return patch


def through(network: Network, patch: int, x: Tensor, conditions: Tensor) -> Tensor:
    """A network's own output, of its first channels alone, for images ``(batch, 3, height, width)``."""
    x = functional.pixel_unshuffle(x, patch).contiguous(memory_format=torch.channels_last)
    output = network(x, conditions).sample[:, : x.shape[1]]
    return functional.pixel_shuffle(output, patch)


def load_denoiser(path: str | Path) -> PixelDenoiser:
    """Load from a local folder or a hub id: ``unet/`` and ``scheduler/``, or both configs at the root.

    Raises ``FileNotFoundError`` in one sentence where nothing loadable is found.
    """
    network, scheduler = pixel_parts(path, load_scheduler)
    return PixelDenoiser(network, scheduler)


def pixel_parts(path: str | Path, load: Callable[[Path], T]) -> tuple[Network, T]:
    """The network at a place, and what ``load`` makes of the folder with its scheduler.

    Raises ``FileNotFoundError`` in one sentence where nothing loadable is found, or ``load`` raises ``ValueError``.
    """
    try:
        with quiet():
            return _parts(_folder(path), load)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no diffusers pixel prior at '{path}': expected a local folder with unet/ and scheduler/ (or both "
            f"configs at its root), or a hub id that can be reached ({str(error).splitlines()[0]})"
        ) from error


def _folder(path: str | Path) -> Path:
    """Fetched from the hub, weights are safetensors where it has them."""
    folder = local_folder(path, [*CONFIGS, "*.safetensors"])
    has_weights = any(folder.rglob("*.safetensors")) or Path(path).is_dir()
    return folder if has_weights else local_folder(path, [*CONFIGS, "*.bin"])


def _parts(folder: Path, load: Callable[[Path], T]) -> tuple[Network, T]:
    nested = (folder / "unet").is_dir()
    network = _network(folder / "unet" if nested else folder).float().eval()
    schedule = folder / "scheduler" if nested else folder
    if not (schedule / "scheduler_config.json").exists():
        raise OSError(f"{schedule / 'scheduler_config.json'} is missing")
    return network, load(schedule)


def _network(folder: Path) -> Network:
    if not (folder / "config.json").exists():
        raise OSError(f"{folder / 'config.json'} is missing")
    name = read_json(folder / "config.json").get("_class_name")
    if name in OWN:
        check_variant(folder)
        return OWN[name].from_pretrained(folder)
    if name != "UNet2DModel":
        check_family(folder, "ddpm")
        raise ValueError(f"its network is a {name}, and it must be one of UNet2DModel, {', '.join(OWN)}")
    with importing():
        from diffusers import UNet2DModel

    network: UNet2DModel = whole(UNet2DModel.from_pretrained, folder, low_cpu_mem_usage=False)
    return network
