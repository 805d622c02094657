"""What a codec may ask of an image prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from itertools import chain
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.priors.speed import Speed
from pscx.registry import Registry
from pscx.runtime.homes import home_of

CPU = torch.device("cpu")
NETWORK = 256  # bytes that a network holds for each number of a signal: some buffers of 96 channels at half resolution


class Prior(nn.Module, ABC):
    """A diffusion model of images, seen as a denoiser.

    The contract is that of Karras et al. 2022 (EDM): a signal ``x = x0 + sigma z`` with standard normal ``z`` and its
    noise level ``sigma``, in units of the signal. What the network is given and what it predicts ends here
    (:mod:`pscx.priors.parameterisations`): a sampler sees :meth:`denoise` and noise levels alone.
    """

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    stride: int
    """Sides of an image must be multiples of this (pixels)."""

    levels: Tensor
    """Noise levels that the model was trained on, ``(count,)`` float64 on the CPU, over 0 and rising.

    Those of a continuous model are a dense grid from its lowest to its highest, along which ``linear`` schedules are
    even.
    """

    continuous: bool = False
    """Whether the network is told any level as it is, else the nearest of :attr:`levels`. Schedules visit none but
    those where it is false, and under an exact prior."""

    evaluations: int = 1
    """Network evaluations that :meth:`denoise` takes for each signal."""

    takes_captions: bool = False
    """Whether :meth:`conditioned` knows what to do with a caption."""

    posterior_mean: bool = True
    """Whether :meth:`denoise` answers ``E[x0 | x]``. A model that was distilled to a few steps answers one image that
    is likely, and what needs the mean refuses it."""

    exact: bool = False
    """Whether :meth:`denoise` gives the same bits on every machine, in any batch, and so does :meth:`to_image` where
    :attr:`signal` is ``pixels``."""

    signal: str = "pixels"
    """What a signal is: ``pixels``, or ``latents``, which an autoencoder in floating point turns into pixels. Nothing
    that encoder and decoder must agree on may depend on :meth:`to_image`. The file of a prior states ``latents`` in its
    own class, from where ``pscx info`` reads it without an import."""

    beside: tuple[str, ...] = ("speed",)
    """Options that no stream may hold: they say how a network is run, not which."""

    implied: ClassVar[Mapping[str, Any]] = {}
    """Options that streams leave out at these values, because earlier streams do not know them."""

    speed: Speed | None = None
    """What makes the network faster, or none; see :meth:`hasten`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[object, Any]] = {}  # see pscx.priors.kept; copies of a prior share it

    @property
    def device(self) -> torch.device:
        """Where the network is; the CPU for a prior without one."""
        modules = (module for network in (*self.denoisers, self) for module in network.modules())
        own = (chain(module.parameters(recurse=False), module.buffers(recurse=False)) for module in modules)
        return next((tensor.device for tensor in chain.from_iterable(own)), CPU)  # exact networks have buffers alone

    @property
    def home(self) -> torch.device:
        """Where signals live, and all that is made of them: :attr:`device`, or the CPU where it has no float64."""
        return home_of(self.device)

    @property
    def denoisers(self) -> list[nn.Module]:
        """The networks of :meth:`denoise`, each as it is called; none for a prior without one."""
        return []

    def hasten(self, speed: Speed | None) -> None:
        """Run the networks so from now on. Raises ``ValueError`` where they cannot be, as those of an exact prior."""
        if speed is None:
            return
        if self.exact:
            raise ValueError("prior.speed must be null: prior.exact is true, and exact networks are run in one way")
        if not self.denoisers:
            raise ValueError(f"prior.speed must be null: a {type(self).__name__} has no network")
        speed.prepare(self.denoisers)
        self.speed = speed

    def running(self) -> AbstractContextManager[None]:
        """Around calls of the networks, which are run as :attr:`speed` says."""
        return nullcontext() if self.speed is None else self.speed.running()

    @abstractmethod
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Estimate of the clean signal ``E[x0 | x]`` for ``x = x0 + sigma z``.

        ``x`` is ``(batch, *signal)``, any float dtype, at :attr:`home`; the answer has its shape, dtype and device.
        ``sigma`` is over 0.
        """

    def memory(self, shape: tuple[int, ...], batch: int) -> int:
        """Bytes that :meth:`denoise` holds for ``batch`` signals of this shape, or :meth:`to_image` for one, roughly.

        Signals and answers themselves do not count. What a stream may ask for is bounded with it.
        """
        return NETWORK * prod(shape) * batch

    @abstractmethod
    def to_signal(self, image: Tensor) -> Tensor:
        """From images ``(batch, 3, height, width)`` in [-1, 1] to the signal that is measured."""

    @abstractmethod
    def to_image(self, signal: Tensor) -> Tensor:
        """From signals back to images ``(batch, 3, height, width)``, nominally in [-1, 1], not clipped."""

    @abstractmethod
    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the signal of one image of this size (sides multiples of :attr:`stride`)."""

    @abstractmethod
    def block_covariance(self, block: int) -> Tensor:
        """Covariance of a ``block`` x ``block`` piece of the signal under the prior, whatever the image.

        Shape ``(dim, dim)`` float64 with ``dim = channels * block^2``, ordered channel, row, column.
        """

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Six bytes that identify the weights and the schedule; a stream carries them."""

    def conditioned(self, caption: str) -> Prior:
        """The prior of images with this caption; a stream carries it beside the fingerprint, which stays the same.

        Raises :class:`pscx.errors.PscxError` where the prior takes no captions, or not this one.
        """
        raise PscxError(
            f"the prior is a {type(self).__name__}, which takes no caption: use one such as stable_diffusion"
        )


def digest(*tensors: Tensor) -> bytes:
    """Six bytes that identify the exact values, dtypes and shapes of ``tensors``."""
    state = sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous()
        state.update(f"{array.dtype}{tuple(array.shape)}".encode())
        state.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return state.digest()[:6]


PRIORS: Registry[Prior] = Registry("prior", Prior)
