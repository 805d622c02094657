"""Row-selection rules: what to measure next."""

from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.local import Local
from pscx.rows.pca import PCA

__all__ = ["PCA", "ROWS", "Local", "Proposal", "RowRule", "Situation"]
