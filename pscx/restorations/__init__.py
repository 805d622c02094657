"""Restorations: how the measurements become one picture."""

from pscx.restorations.base import RESTORATIONS, Draw, Restoration
from pscx.restorations.blend import Blend
from pscx.restorations.drawn import Drawn
from pscx.restorations.mean import Mean
from pscx.restorations.sample import Sample

__all__ = ["RESTORATIONS", "Blend", "Draw", "Drawn", "Mean", "Restoration", "Sample"]
