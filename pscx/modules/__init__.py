"""LightningModules: train a prior, evaluate a codec."""

from pscx.modules.export import ExportPrior
from pscx.modules.train import TrainDDPM

__all__ = ["ExportPrior", "TrainDDPM"]
