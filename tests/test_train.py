"""Training of a prior: what is learnt, logged and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from tiny import tiny_network
from torch import Tensor

from pscx.data import CropData
from pscx.modules import ExportPrior, TrainDDPM
from pscx.modules.train import VALIDATION_LEVELS
from pscx.priors.denoiser import load_denoiser


def scheduler(prediction: str = "v_prediction") -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)


class Exports(Callback):
    """Keeps the weights after the first step, where an average begins, and what every validation left exported."""

    def __init__(self) -> None:
        self.first: dict[str, Tensor] = {}
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == 1:
            assert isinstance(pl_module, TrainDDPM)
            self.first = {key: value.clone() for key, value in pl_module.prior.network.state_dict().items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append(load_denoiser(Path(trainer.default_root_dir) / "prior").network.state_dict())


def test_exports_hold_the_average_and_not_the_last_step(image_folder: Path, tmp_path: Path) -> None:
    module = TrainDDPM(tiny_network(channels=12), scheduler(), learning_rate=0.1, warmup=1, decay=0.0)
    exports = Exports()
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator="cpu",
        callbacks=[EMAWeightAveraging(decay=0.99999), ExportPrior(), exports],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    root = str(image_folder)
    trainer.fit(module, CropData(root, root, crop=16, batch_size=2, crops_per_epoch=4, val_crops=2))
    assert len(exports.weights) == 2
    final = load_denoiser(tmp_path / "prior").network.state_dict()
    for weights in (*exports.weights, final):  # an average that hardly moves, rounded to float16
        for key, value in exports.first.items():
            torch.testing.assert_close(weights[key], value, rtol=2e-3, atol=2e-3)
    assert {f"val/loss_sigma_{level:g}" for level in VALIDATION_LEVELS} <= trainer.logged_metrics.keys()


def test_the_loss_is_that_of_v() -> None:
    module = TrainDDPM(tiny_network(channels=12), scheduler())
    image, noise = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    t = torch.tensor([100, 700])
    a = module.prior.alphas_cumprod[t].float()[:, None, None, None]
    predicted = module.prior.predict(a.sqrt() * image + (1 - a).sqrt() * noise, t)
    x0 = torch.cat(
        [module.prior.denoise((a.sqrt() * image + (1 - a).sqrt() * noise)[i : i + 1], int(t[i])) for i in range(2)]
    )
    # the error of v is that of x0 over sqrt(1 - a): Salimans and Ho 2022, appendix D
    expected = ((x0 - image).square() / (1 - a)).mean((1, 2, 3))
    torch.testing.assert_close(module.v_loss(image, t, noise), expected, rtol=1e-3, atol=1e-4)
    assert predicted.shape == image.shape


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="decay must lie in"):
        TrainDDPM(tiny_network(channels=12), scheduler(), decay=2.0)
    with pytest.raises(ValueError, match=r"prediction_type must be 'v_prediction', got 'epsilon'"):
        TrainDDPM(tiny_network(channels=12), scheduler("epsilon"))
