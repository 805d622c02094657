"""Posterior samplers: draws of ``p(x | H, y)`` under a prior, with no training for the task."""

from pscx.samplers.base import SAMPLERS, Problem, Sampler
from pscx.samplers.ddrm import DDRM

__all__ = ["DDRM", "SAMPLERS", "Problem", "Sampler"]
