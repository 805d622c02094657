"""From all measurements to one picture."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from pscx.codecs.counted import CountedPrior
from pscx.codecs.psc.loop import Known, Loop, finite
from pscx.errors import PscxError
from pscx.execution.batching import clock
from pscx.restorations.base import Restoration
from pscx.runtime.returned import returned
from pscx.samplers.base import Sampler, with_options

FINAL = 1 << 16  # noise index reserved for the final restoration


def restored(
    loop: Loop, restoration: Restoration, sampler: Sampler, outcome: Known, shape: tuple[int, ...], index: int
) -> Tensor:
    """Restoration number ``index``, ``(channels, height, width)`` float64, from draws of ``sampler``."""
    prior = CountedPrior(loop.prior, outcome.account)
    problem = loop.problem(prior, outcome.measurements, FINAL, shape, outcome.estimate)
    started = clock()
    draw = partial(loop.spread.draws, sampler, problem, batch=loop.batch)
    signal = returned(restoration, "restore", restoration.restore(draw, index), shape, problem.device)
    outcome.account.seconds += clock() - started
    return finite(signal, "the restored values")


def allowed(restoration: Restoration, sampler: Sampler) -> Restoration:
    """The restoration. Raises :class:`PscxError` where the sampler lacks an option that it draws with."""
    try:
        with_options(sampler, restoration.drawing)
    except ValueError as error:
        raise PscxError(f"restoration: {error}") from error
    return restoration
