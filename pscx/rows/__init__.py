"""Row-selection rules: what to measure next."""

from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.dct import DCT
from pscx.rows.learned import Learned
from pscx.rows.local import Local
from pscx.rows.pca import PCA
from pscx.rows.random import Random
from pscx.rows.tweedie import Tweedie

__all__ = ["DCT", "PCA", "ROWS", "Learned", "Local", "Proposal", "Random", "RowRule", "Situation", "Tweedie"]
