"""What all latent diffusion models share: guidance by a caption, the autoencoder, the fingerprint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from pscx.exact import exactly, make_exact
from pscx.priors.autoencoder import with_options
from pscx.priors.base import Prior
from pscx.priors.fingerprints import Fingerprint
from pscx.priors.parameterisations import Parameterisation
from pscx.priors.speed import Format, Speed, dtype_of
from pscx.priors.texts import Text, Texts
from pscx.runtime.quiet import quiet

CALL = 1 << 14  # latent pixels of all samples that an exact network is given at once, unless one sample has more


@dataclass(frozen=True)
class LatentOptions:
    """Options that all latent priors have; ``ValueError`` where one is out of range.

    Args:
        dtype: number format of all networks.
        guidance: weight of a caption, at least 0.
        vae_slicing: encode and decode images of a batch one by one.
        vae_tiling: encode and decode large images in tiles.
        offload: keep text encoders on the CPU but while they encode a caption.
        speed: what makes the denoiser faster, or none.
        exact: denoise and encode captions with :mod:`pscx.exact`, in float32 throughout.
    """

    dtype: Format
    guidance: float
    vae_slicing: bool
    vae_tiling: bool
    offload: bool
    speed: Speed | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.exact and self.dtype != "fp32":
            raise ValueError(f"prior.dtype must be fp32: prior.exact is true, got {self.dtype}")
        if not 0 <= self.guidance < inf:
            raise ValueError(f"prior.guidance must be at least 0 and finite, got {self.guidance}")


class LatentPrior(Prior):
    """Latent diffusion (Rombach et al. 2022): a denoiser of an autoencoder's latents, told a prompt.

    Without a caption the denoiser is that of the empty prompt, one evaluation a step. With one, its output is
    ``o + guidance (c - o)``, with ``o`` for the empty prompt and ``c`` for the caption (Ho and Salimans 2022, Eq. 6,
    where ``w = guidance - 1``): two evaluations unless ``guidance`` is 1, or the network itself is told the guidance.

    An exact one has the same latents on every machine: denoiser and text encoders have exact layers, and guidance is
    single operations in float64. The autoencoder stays in floating point: no decoder asks it for more than the pixels
    at the end.

    Args:
        network: the denoiser, of diffusers, in its number format.
        vae: the autoencoder, of diffusers.
        texts: the text encoders, in theirs.
        parameterisation: what the network is given and predicts.
        options: see :class:`LatentOptions`.
        upcast: whether the autoencoder stays in float32 where other networks are in float16.
    """

    takes_captions = True
    signal = "latents"

    guided_inside: bool = False
    """Whether the network is told the guidance, so that one evaluation is enough."""

    def __init__(
        self,
        network: Any,
        vae: Any,
        texts: Texts,
        parameterisation: Parameterisation,
        options: LatentOptions,
        *,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.guidance, self.parameterisation = options.guidance, parameterisation
        self.levels, self.continuous = parameterisation.levels, parameterisation.continuous
        dtype = dtype_of("fp32" if upcast and options.dtype == "fp16" else options.dtype)
        self.network, self.exact = network, options.exact
        if self.exact:
            make_all_exact(network, texts, len(self.levels))
        self.vae = vae
        self.autoencoder = with_options(vae, dtype, slicing=options.vae_slicing, tiling=options.vae_tiling)
        self._texts = (texts,)  # in a tuple, it is not moved with the prior
        if not options.offload:
            self.text_encoders = texts
        self.eval().requires_grad_(False)
        texts.eval().requires_grad_(False)
        with torch.no_grad(), quiet(), self.computing(texts.device):
            self.keep_empty(texts.empty())
        self.caption: Text | None = None
        self.hasten(options.speed)
        self._fingerprint = Fingerprint()

    @property
    def texts(self) -> Texts:
        """The text encoders, wherever they are."""
        return self._texts[0]

    @property
    def empty(self) -> Text:
        """What stands for no prompt."""
        return {name: getattr(self, f"empty_{name}") for name in self._empty}

    def keep_empty(self, text: Text) -> None:
        """Set :attr:`empty`, as buffers that move with the prior."""
        self._empty = tuple(text)
        for name, tensor in text.items():
            self.register_buffer(f"empty_{name}", tensor, persistent=False)

    @property
    def denoisers(self) -> list[nn.Module]:
        return [self.network]

    def conditioned(self, caption: str) -> LatentPrior:
        other = copy(self)  # shares the networks
        with torch.no_grad(), quiet(), self.texts.at(self.device), self.computing(self.device):
            other.caption = self.texts(caption)
        other.evaluations = 1 if self.guided_inside or self.guidance == 1 else 2
        return other

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        with self.computing(self.network.device):
            if not self.exact:
                return self.parameterisation.denoise(self._guided, x, sigma)
            parts = torch.split(x, at_once(x.shape[-2] * x.shape[-1], len(x), exact=True))
            return torch.cat([self.parameterisation.denoise(self._guided, part, sigma) for part in parts])

    def computing(self, device: torch.device) -> AbstractContextManager[None]:
        """Around calls of networks on ``device``; :class:`PscxError` where exact ones cannot be so there."""
        return exactly(device, self.network.dtype) if self.exact else nullcontext()

    def _guided(self, x_t: Tensor, t: float) -> Tensor:
        """The network's output at a time, under the caption where there is one."""
        output = self.predict(x_t, t, self.empty if self.caption is None else self.caption)
        if self.evaluations > 1:
            plain = self.predict(x_t, t, self.empty)
            output = plain + self.guidance * (output - plain)
        return output

    def predict(self, x_t: Tensor, t: float, text: Text) -> Tensor:
        """The network's own output under a prompt; shape, dtype and device of ``x_t``."""
        x = x_t.to(self.network.device, self.network.dtype)
        told = {}
        for name, tensor in text.items():
            own = tensor.to(x) if tensor.is_floating_point() else tensor.to(x.device)
            told[name] = own.expand(len(x), *own.shape[1:])
        times = torch.full((len(x),), t, device=x.device)  # a number would be sent to the device in each call
        with self.running():
            return self.output(x, times, told).to(x_t)

    @abstractmethod
    def output(self, x: Tensor, times: Tensor, text: Text) -> Tensor:
        """The network's answer to scaled signals ``(batch, *signal)`` at ``times`` ``(batch,)``; shape of ``x``."""

    @abstractmethod
    def activations(self, height: int, width: int) -> int:
        """Numbers that the network holds at once for one signal of so many latent pixels, roughly."""

    def memory(self, shape: tuple[int, ...], batch: int) -> int:
        """Of the denoiser at the latents' own size and of the decoder at the image's, where each holds most."""
        samples = at_once(shape[-2] * shape[-1], batch, exact=self.exact)
        denoiser: int = self.network.dtype.itemsize * self.activations(shape[-2], shape[-1]) * samples
        return max(denoiser, self.autoencoder.memory(shape[-2] * shape[-1]))

    def to_signal(self, image: Tensor) -> Tensor:
        return self.autoencoder.to_signal(image)

    def to_image(self, signal: Tensor) -> Tensor:
        return self.autoencoder.to_image(signal)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return self.autoencoder.signal_shape(height, width)

    def block_covariance(self, block: int) -> Tensor:
        return self.autoencoder.block_covariance(block)

    def facts(self) -> list[float]:
        """What :meth:`denoise` depends on beside weights, levels and guidance."""
        return []

    def fingerprint(self) -> bytes:
        """Of all weights in their format, or as integers, the schedule, what is predicted, guidance and tiling."""
        denoiser, texts = (numbers_of(part, exact=self.exact) for part in (self.network, self.texts))
        weights = [*denoiser, *self.vae.parameters(), *texts, self.levels]
        facts = torch.tensor([*self.facts(), self.guidance, *self.autoencoder.facts()], dtype=torch.float64)
        return self._fingerprint.of(weights, [facts])


def make_all_exact(network: nn.Module, texts: Texts, steps: int) -> None:
    """Replace the layers of a denoiser and its text encoders by exact ones; ``ValueError`` where one has no such form.

    All have weights of 16 bits: these models were not meant to have 8, and predicted noise forgives little. Layers are
    replaced one by one, so that memory never holds all float and all exact weights together.
    """
    make_exact(network, steps=steps, wide=True, place="the denoiser", freeing=True)
    for name, encoder in texts.named_children():
        make_exact(encoder, wide=True, place=f"the text {name}", freeing=True)


def numbers_of(networks: nn.Module, *, exact: bool) -> Iterable[Tensor]:
    """What an answer of networks depends on: parameters, or all that exact layers hold in their place."""
    return networks.state_dict(keep_vars=True).values() if exact else networks.parameters()


def at_once(pixels: int, batch: int, *, exact: bool) -> int:
    """How many of ``batch`` signals of so many latent pixels a call takes: all, or fewer where that changes no bit."""
    return min(batch, max(1, CALL // pixels)) if exact else batch
