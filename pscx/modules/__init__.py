"""LightningModules: train a prior, calibrate a codec, evaluate it."""

from lightning.pytorch import LightningModule

from pscx.modules.calibrate import Calibrate
from pscx.modules.evaluate import Evaluate
from pscx.modules.export import ExportPrior
from pscx.modules.train import TrainDDPM
from pscx.registry import Registry

MODULES: Registry[LightningModule] = Registry("module", LightningModule)
MODULES.register("calibrate")(Calibrate)
MODULES.register("evaluate")(Evaluate)
MODULES.register("train_ddpm")(TrainDDPM)

__all__ = ["MODULES", "Calibrate", "Evaluate", "ExportPrior", "TrainDDPM"]
