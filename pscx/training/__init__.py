"""LightningModules that learn: a prior, and what a codec knows of images beforehand."""

from pscx.training.calibrate import Calibrate
from pscx.training.export import ExportPrior
from pscx.training.fit_curve import FitCurve
from pscx.training.fit_latent import FitLatent
from pscx.training.fit_rows import FitRows
from pscx.training.quantize_weights import QuantizeWeights
from pscx.training.train import TrainDDPM

__all__ = ["Calibrate", "ExportPrior", "FitCurve", "FitLatent", "FitRows", "QuantizeWeights", "TrainDDPM"]
