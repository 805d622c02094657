"""Export of a trained prior, beside Lightning's own checkpoints."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from pscx.modules.train import TrainDDPM


class ExportPrior(Callback):
    """After each validation write the weights just validated (the EMA's) as a folder that ``prior: ddpm`` can load.

    Args:
        folder: name of the folder under the trainer's ``default_root_dir``.
    """

    def __init__(self, folder: str = "prior") -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, TrainDDPM) and trainer.is_global_zero and not trainer.sanity_checking:
            pl_module.prior.save(Path(trainer.default_root_dir) / self.folder)
