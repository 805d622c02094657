"""Posterior samplers: draws of ``p(x | H, y)`` under a prior, with no training for the task."""

from pscx.samplers.base import SAMPLERS, Problem, Sampler, with_options
from pscx.samplers.ddrm import DDRM
from pscx.samplers.dps import DPS
from pscx.samplers.nested import Nested
from pscx.samplers.pigdm import PiGDM

__all__ = ["DDRM", "DPS", "SAMPLERS", "Nested", "PiGDM", "Problem", "Sampler", "with_options"]
