"""From the last state to one picture: the denoised state, or samples of the image given that state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from pscx.codecs.paths.walk import Reached
from pscx.errors import PscxError
from pscx.priors.base import Prior
from pscx.restorations.base import Restoration
from pscx.runtime.returned import returned
from pscx.signal.noise import Noise

DRAWN = 1 << 44  # noise index of the samples


class Restoring(ABC):
    """Makes a signal of the last state. ``evaluations`` (NFE) are those of one restoration, at most."""

    evaluations: int
    exact: bool

    @abstractmethod
    def restored(self, prior: Prior, noise: Noise, reached: Reached, index: int) -> Tensor:
        """Restoration number ``index``, ``(channels, height, width)`` float64."""


class Denoised(Restoring):
    """The posterior mean ``E[x0 | x]``, whatever the index, or the end of the probability flow from the last state.

    The flow (Song et al. 2021, DDIM, with ``eta`` 0) halves the level at each evaluation, and ends by denoising.
    ``evaluations`` is the number of them.
    """

    exact = True

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def restored(self, prior: Prior, noise: Noise, reached: Reached, index: int) -> Tensor:
        state, level = reached.state, reached.level
        for _ in range(self.evaluations - 1):
            estimate = prior.denoise(state[None], level)[0].double()
            state, level = estimate + (state - estimate) * 0.5, level * 0.5
        return prior.denoise(state[None], level)[0].double()


@dataclass(frozen=True)
class Descent:
    """Samples of the image given the last state: the reverse diffusion goes on from there, without a stream.

    Steps of DDIM (Song et al. 2021, Eqs. 12 and 16) halve the level ``s``, and the last one denoises::

        x <- x0 + sqrt(1 - 3/4 eta^2) / 2 (x - x0) + sqrt(3/4) eta s / 2 z,   x0 <- E[x0 | x]

    Args:
        steps: denoiser evaluations (NFE) per sample, at least 1.
        eta: share of fresh noise, in [0, 1]: 1 is the ancestral step of DDPM, with 0 all samples are one.
    """

    steps: int = 4
    eta: float = 1.0

    def draws(self, prior: Prior, noise: Noise, reached: Reached, indices: range) -> Iterator[Tensor]:
        """The samples of these numbers one by one, ``(1, channels, height, width)`` float64 each."""
        shape, kept = tuple(reached.state.shape), sqrt(1 - 0.75 * self.eta * self.eta) * 0.5
        for index in indices:
            state, level = reached.state, reached.level
            for step in range(self.steps - 1):
                fresh = noise.normal(shape, iteration=DRAWN, sample=index, step=step, device=state.device)
                estimate = prior.denoise(state[None], level)[0].double()
                level *= 0.5
                state = estimate + (state - estimate) * kept + fresh * (level * self.eta * sqrt(0.75))
            yield prior.denoise(state[None], level).double()


class Sampled(Restoring):
    """A restoration from samples of :class:`Descent`, with the options that it draws with.

    Raises :class:`PscxError` for an option that samples of ``family`` do not have.
    """

    def __init__(self, restoration: Restoration, family: str) -> None:
        drawing = restoration.drawing
        for name in drawing.keys() - {"steps", "eta"}:
            raise PscxError(f"restoration: samples of {family} have no option '{name}': they have steps, eta")
        self.descent = Descent(int(drawing.get("steps", Descent.steps)), drawing.get("eta", Descent.eta))
        self.restoration, self.exact = restoration, restoration.exact
        self.evaluations = restoration.draws * self.descent.steps

    def restored(self, prior: Prior, noise: Noise, reached: Reached, index: int) -> Tensor:
        signal = self.restoration.restore(partial(self.descent.draws, prior, noise, reached), index)
        return returned(self.restoration, "restore", signal, reached.state.shape, reached.state.device)


def finite(signal: Tensor) -> Tensor:
    """The signal. Raises :class:`PscxError` unless all its numbers are finite."""
    if not torch.isfinite(signal).all():
        raise PscxError("the restored values are not finite numbers: the denoiser diverges")
    return signal
