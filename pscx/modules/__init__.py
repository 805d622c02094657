"""LightningModules: train a prior, learn a codec's row rule and entropy coding, evaluate it."""

from lightning.pytorch import LightningModule

from pscx.modules.calibrate import Calibrate
from pscx.modules.evaluate import Evaluate
from pscx.modules.export import ExportPrior
from pscx.modules.fit_rows import FitRows
from pscx.modules.train import TrainDDPM
from pscx.registry import Registry

MODULES: Registry[LightningModule] = Registry("module", LightningModule)
MODULES.register("calibrate")(Calibrate)
MODULES.register("evaluate")(Evaluate)
MODULES.register("fit_rows")(FitRows)
MODULES.register("train_ddpm")(TrainDDPM)

__all__ = ["MODULES", "Calibrate", "Evaluate", "ExportPrior", "FitRows", "TrainDDPM"]
