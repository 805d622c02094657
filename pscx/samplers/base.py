"""Contract of a posterior sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pscx.priors.base import Prior
from pscx.registry import Registry
from pscx.signal.measurements import Measurements
from pscx.signal.noise import Noise


@dataclass(frozen=True)
class Problem:
    """One posterior to draw from: ``p(x | H, y)`` under a prior.

    ``estimate`` is the best guess of ``x`` so far, ``(channels, height, width)`` float64, or none; ``iteration``
    tells the noise source which of the codec's iterations asks.
    ``antithetic`` draws come in pairs: the noise of draw ``2 i + 1`` is that of draw ``2 i`` with the opposite sign
    (Hammersley and Morton 1956), so the mean of both is nearer to the posterior mean than that of independent ones.
    """

    prior: Prior
    measurements: Measurements
    noise: Noise
    iteration: int
    shape: tuple[int, ...]
    estimate: Tensor | None = None
    antithetic: bool = False

    @property
    def device(self) -> torch.device:
        """Where the problem lies, and what is drawn."""
        return self.measurements.device

    def draw(self, indices: range, step: int) -> Tensor:
        """Standard normal noise of a sampler's step for draws ``indices``: ``(len(indices), *shape)`` float64."""
        draws = torch.empty(len(indices), *self.shape, dtype=torch.float64, device=self.device)
        for place, index in enumerate(indices):
            opposite = self.antithetic and index % 2 == 1
            if opposite and place:
                torch.neg(draws[place - 1], out=draws[place])
                continue
            self.noise.draw(draws[place], iteration=self.iteration, sample=index - opposite, step=step)
            if opposite:
                draws[place].neg_()
        return draws


class Sampler(ABC):
    """A zero-shot posterior sampler: stateless configuration, one method."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    exact: bool = False
    """Whether draws under an exact prior are bit-exact in any batch: only integers and single IEEE operations on each
    number, no sums of a library and no function except the square root."""

    needs_mean: bool = False
    """Whether the denoiser must answer a posterior mean (:attr:`pscx.priors.Prior.posterior_mean`)."""

    evaluations: int = 1
    """Largest number of denoiser evaluations (NFE) of a draw; limits on streams use it."""

    @abstractmethod
    def sample(self, problem: Problem, indices: range) -> Tensor:
        """Draws number ``indices`` of the posterior: ``(len(indices), *shape)``, float64.

        A draw is a function of the problem and its own index, never of the others drawn beside it.
        """


SAMPLERS: Registry[Sampler] = Registry("sampler", Sampler)


def with_options(sampler: Sampler, options: Mapping[str, Any]) -> Sampler:
    """The registered sampler with other values of some options.

    Raises ``ValueError`` where it has no such option, or its constructor refuses a value.
    """
    if not options:
        return sampler
    own = SAMPLERS.spec(sampler)
    name = own.pop("name")
    for key in options.keys() - own.keys():
        raise ValueError(f"the sampler '{name}' has no option '{key}': it has {', '.join(own)}")
    make: Callable[..., Sampler] = type(sampler)
    return make(**{**own, **options})
