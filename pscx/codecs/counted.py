"""A prior whose network evaluations are counted."""

from __future__ import annotations

from torch import Tensor

from pscx.codecs.base import Account
from pscx.execution.batching import clock, denoise
from pscx.priors.base import Prior


class CountedPrior(Prior):
    """A prior whose network evaluations are counted and timed; otherwise ``inner``."""

    def __init__(self, inner: Prior, account: Account) -> None:
        super().__init__()
        self.inner, self.account = inner, account
        self.stride, self.alphas_cumprod, self.exact = inner.stride, inner.alphas_cumprod, inner.exact

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        started = clock()
        x0 = denoise(self.inner, x_t.to(self.inner.alphas_cumprod.device), t).to(x_t.device)
        self.account.network_seconds += clock() - started
        self.account.evaluations += len(x_t) * self.inner.evaluations
        return x0

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
