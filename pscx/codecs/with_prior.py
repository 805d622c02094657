"""What families of codecs share whose signal space and weights are those of one prior."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pscx.codecs.base import SignalCodec
from pscx.execution.arithmetic import arithmetic_of
from pscx.priors.base import Prior
from pscx.runtime.returned import returned

Self = TypeVar("Self", bound="PriorCodec")


class PriorCodec(SignalCodec):
    """A codec of the signals of a prior.

    A constructor keeps the prior and asks nothing of it: a decoder makes a codec before it loads the prior, to see what
    work a stream asks for.

    Args:
        prior: the diffusion model.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    @property
    def takes_captions(self) -> bool:
        return self.prior.takes_captions

    @property
    def network(self) -> nn.Module:
        return self.prior

    @property
    def device(self) -> torch.device:
        return self.prior.home

    def to_signal(self, image: Tensor) -> Tensor:
        shape = (len(image), *self.prior.signal_shape(*image.shape[-2:]))
        return returned(self.prior, "to_signal", self.prior.to_signal(image), shape, image.device, None)

    def to_image(self, signal: Tensor) -> Tensor:
        image = self.prior.to_image(signal)
        shape = (len(signal), 3, *image.shape[-2:]) if isinstance(image, Tensor) else ()
        return returned(self.prior, "to_image", image, shape, signal.device, None)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return self.prior.signal_shape(height, width)

    def fingerprint(self) -> bytes:
        return self.prior.fingerprint()

    def arithmetic(self) -> str:
        return "" if self.exact else arithmetic_of(self.prior)

    def conditioned(self: Self, caption: str) -> Self:
        if not caption:
            return self
        other = copy(self)
        other.prior = self.prior.conditioned(caption)
        return other
