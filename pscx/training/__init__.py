"""LightningModules that learn: a prior, a codec's row rule, its entropy coding and a path's typical error."""

from pscx.training.calibrate import Calibrate
from pscx.training.export import ExportPrior
from pscx.training.fit_curve import FitCurve
from pscx.training.fit_rows import FitRows
from pscx.training.quantize_weights import QuantizeWeights
from pscx.training.train import TrainDDPM

__all__ = ["Calibrate", "ExportPrior", "FitCurve", "FitRows", "QuantizeWeights", "TrainDDPM"]
