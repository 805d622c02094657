"""Contract of a row-selection rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from pscx.priors.base import Prior
from pscx.registry import Registry
from pscx.runtime.returned import refuse, returned
from pscx.signal.measurements import Measurements

Predictions: TypeAlias = Generator[tuple[Tensor, Tensor], Tensor, None]
"""Yields mean and variance of one group of rows after the other, ``(r,)`` float64 on the CPU, and receives the values
that the group's symbols stand for, ``(r,)``: what is known of a group may depend on the groups before it."""


@dataclass(frozen=True)
class Proposal:
    """New rows, in the order in which they are coded.

    ``block`` ``(r,)`` says which block of the partition a row lies in, ``rows`` are orthonormal to each other and to
    all earlier ones: ``(r, dim)`` float64, or ``(r,)`` int64 where the measurements are
    :class:`pscx.signal.measurements.Coordinates`. ``variance`` ``(r,)`` is the predicted variance of the signal along
    them.
    ``groups`` are sizes that add up to ``r``: rows of one group are coded together, and an entropy coder may learn
    from one group for the next. A quantizer of whole segments makes one group of them, unless there are
    ``predictions``: these begin the means and variances of the groups in turn, in place of the samples' mean and
    ``variance``.
    ``weight`` ``(r,)`` float64, over 0, is what an error along each row counts: a row is quantized ``weight`` times as
    finely as one of weight 1. None: all are 1.
    """

    block: Tensor
    rows: Tensor
    variance: Tensor
    groups: list[int]
    predictions: Callable[[], Predictions] | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class Situation:
    """State of the codec that a rule decides from, the same on both sides.

    ``samples`` ``(s, channels, height, width)`` float64, or none if :meth:`RowRule.needs_samples` is false;
    ``resolution`` is the standard deviation below which a row is not worth coding (signal units), or zero.
    ``denoiser`` is the prior with its evaluations counted, for a rule that runs the network; ``prior`` is one object
    from run to run, so that results computed from it can be cached. ``antithetic`` samples come in pairs of
    opposite noise.
    """

    prior: Prior
    measurements: Measurements
    samples: Tensor | None
    iteration: int
    iterations: int
    resolution: float
    denoiser: Prior
    antithetic: bool = False

    @property
    def divisor(self) -> float:
        """Divisor of the samples' squared deviations from their mean for a variance; 1 for one sample.

        Of ``s`` independent samples ``s - 1``. The noise of antithetic pairs has no part in the mean, as far as
        samples depend on it linearly: ``s``, or ``s - 1 / s`` where one sample is left over.
        """
        count = 1 if self.samples is None else len(self.samples)
        return max(count - (count % 2) / count if self.antithetic else count - 1, 1)

    @property
    def late(self) -> bool:
        """Whether the iteration is in the second half."""
        return 2 * self.iteration >= self.iterations


class RowRule(ABC):
    """Chooses the next measurements. Stateless: the measurements hold all history."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    exact: bool = False
    """Whether proposals and measurements, given the same samples, are the same bits on every machine."""

    implied: ClassVar[Mapping[str, Any]] = {}
    """Options that streams leave out at these values, because earlier streams do not know them."""

    needs_mean: bool = False
    """Whether the denoiser must answer a posterior mean (:attr:`pscx.priors.Prior.posterior_mean`)."""

    evaluations: int = 0
    """Denoiser evaluations that :meth:`propose` takes, at most, beside those of the samples."""

    @abstractmethod
    def start(self, prior: Prior, shape: tuple[int, ...]) -> Measurements:
        """Empty measurements of a signal of this shape; the codec fills them and passes them to :meth:`propose`."""

    @abstractmethod
    def needs_samples(self, iteration: int) -> bool:
        """Whether posterior samples must be drawn before this iteration's rows can be proposed."""

    @abstractmethod
    def propose(self, situation: Situation) -> Proposal:
        """The next rows; an empty proposal if nothing is worth measuring in this iteration."""

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        """Estimated peak memory of the rule and its measurements in bytes, for signals of this shape.

        Limits on streams use it before anything is allocated. A rule that holds more than a few copies of the samples
        overrides this.
        """
        return 8 * prod(shape) * (3 * samples + 12)

    def work(self, shape: tuple[int, ...], samples: int, iterations: int, evaluations: int) -> float:
        """Estimated multiply-adds of choosing the rows, and of measuring along them ``evaluations`` signals.

        Limits on streams use it beforehand; right within a factor of ten. A rule overrides this if it takes more than a
        few operations for each number of the samples.
        """
        return 0.0

    @property
    @abstractmethod
    def stride(self) -> int:
        """Sides of a signal must be multiples of this."""


def proposed(rule: RowRule, situation: Situation) -> Proposal:
    """What a rule proposes. Raises :class:`pscx.errors.PscxError` if its parts are not what :class:`Proposal` says."""
    found = rule.propose(situation)
    if not isinstance(found, Proposal):
        refuse(rule, "propose", "a Proposal", f"'{type(found).__name__}'")
    device = situation.measurements.device
    count = len(found.block) if isinstance(found.block, Tensor) and found.block.ndim else 0
    returned(rule, "propose (block)", found.block, (count,), device, torch.int64)
    returned(rule, "propose (variance)", found.variance, (count,), device)
    if found.weight is not None:
        returned(rule, "propose (weight)", found.weight, (count,), device)
    if len(found.rows) != count:
        refuse(rule, "propose", f"as many rows as block has numbers, {count}", str(len(found.rows)))
    if sum(found.groups) != count:
        refuse(rule, "propose", f"groups that add up to the {count} rows", str(found.groups))
    return found


ROWS: Registry[RowRule] = Registry("row rule", RowRule)
