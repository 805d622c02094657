"""From a network's own output to the clean signal, Karras et al. 2022 (EDM), Eq. 7."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

Network: TypeAlias = Callable[[Tensor, float], Tensor]
"""Takes the scaled signal and ``c_noise``; its output has the signal's shape, dtype and device."""


class Scalings(NamedTuple):
    """The four numbers of Eq. 7 at one noise level; ``c_noise`` tells the network the level in its own unit."""

    c_skip: float
    c_out: float
    c_in: float
    c_noise: float


class Parameterisation(ABC):
    """A kind of network, seen as a denoiser: ``D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)``.

    ``x = x0 + sigma z`` with standard normal ``z``; ``sigma`` is in units of the signal.
    """

    levels: Tensor
    """The noise levels that the network knows, as :attr:`pscx.priors.Prior.levels`."""

    continuous: bool
    """Whether levels between those are told the network as they are, as :attr:`pscx.priors.Prior.continuous`."""

    @abstractmethod
    def scalings(self, sigma: float) -> Scalings:
        """The coefficients at noise level ``sigma``, each of single IEEE operations where exactness matters."""

    def denoise(self, network: Network, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x]``, shape and dtype of ``x``."""
        c_skip, c_out, c_in, c_noise = self.scalings(sigma)
        output = network(c_in * x, c_noise)
        return c_skip * x + c_out * output
