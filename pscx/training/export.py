"""Export of a trained prior, beside Lightning's own checkpoints."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from pscx.training.train import TrainDDPM


class ExportPrior(Callback):
    """Write the averaged weights as a folder that ``prior: ddpm`` can load: before each validation and at the end.

    Stands behind the callback that averages the weights, whose average is in place at both times.

    Args:
        folder: name of the folder under the trainer's ``default_root_dir``.
    """

    def __init__(self, folder: str = "prior") -> None:
        self.folder = folder

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.export(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.export(trainer, pl_module)

    def export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the module's present weights under ``default_root_dir``."""
        if isinstance(pl_module, TrainDDPM) and trainer.is_global_zero:
            pl_module.prior.save(Path(trainer.default_root_dir) / self.folder)
