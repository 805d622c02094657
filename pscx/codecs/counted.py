"""A prior whose network evaluations are counted."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from pscx.codecs.base import Account
from pscx.execution.batching import clock, denoise
from pscx.priors.base import Prior
from pscx.priors.speed import Speed
from pscx.runtime.cancel import check_cancel
from pscx.runtime.returned import returned


class CountedPrior(Prior):
    """A prior whose network evaluations are counted and timed, and may be cancelled; otherwise ``inner``."""

    def __init__(self, inner: Prior, account: Account) -> None:
        super().__init__()
        self.inner, self.account = inner, account
        self.stride, self.exact = inner.stride, inner.exact
        self.levels, self.continuous = inner.levels, inner.continuous
        self.evaluations, self.takes_captions = inner.evaluations, inner.takes_captions
        self.posterior_mean, self.signal = inner.posterior_mean, inner.signal
        self.references, self.speed = inner.references, inner.speed
        self.implied = inner.implied  # type: ignore[misc]  # of its class

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def denoisers(self) -> list[torch.nn.Module]:
        return self.inner.denoisers

    def hasten(self, speed: Speed | None) -> None:
        self.inner.hasten(speed)
        self.speed = self.inner.speed

    def running(self) -> AbstractContextManager[None]:
        return self.inner.running()

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        check_cancel()
        started = clock()
        x0 = returned(self.inner, "denoise", denoise(self.inner, x, sigma), x.shape, x.device, x.dtype)
        self.account.network_seconds += clock() - started
        self.account.evaluations += len(x) * self.inner.evaluations
        return x0

    def memory(self, shape: tuple[int, ...], batch: int) -> int:
        return self.inner.memory(shape, batch)

    def conditioned(self, caption: str) -> Prior:
        return CountedPrior(self.inner.conditioned(caption), self.account)

    def to_signal(self, image: Tensor) -> Tensor:
        return self.inner.to_signal(image)

    def to_image(self, signal: Tensor) -> Tensor:
        return self.inner.to_image(signal)

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        return self.inner.signal_shape(height, width)

    def block_covariance(self, block: int) -> Tensor:
        return self.inner.block_covariance(block)

    def fingerprint(self) -> bytes:
        return self.inner.fingerprint()
