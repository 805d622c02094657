"""LightningModules by name, for the key ``model`` of a config."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from pscx.evaluation import Evaluate
from pscx.registry import Registry
from pscx.training import Calibrate, FitCurve, FitLatent, FitRows, QuantizeWeights, TrainDDPM

MODULES: Registry[LightningModule] = Registry("module", LightningModule)
MODULES.register("calibrate")(Calibrate)
MODULES.register("evaluate")(Evaluate)
MODULES.register("fit_curve")(FitCurve)
MODULES.register("fit_latent")(FitLatent)
MODULES.register("fit_rows")(FitRows)
MODULES.register("quantize_weights")(QuantizeWeights)
MODULES.register("train_ddpm")(TrainDDPM)
