"""Runs beside figures that others published: ``pscx compare``."""

from pscx.comparison.curve import Compared
from pscx.comparison.published import published
from pscx.comparison.published_sets import SETS, ImageSet

__all__ = ["SETS", "Compared", "ImageSet", "published"]
