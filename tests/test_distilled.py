"""Models that were distilled to a few steps: they load, say so, and are refused where the mean is needed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from tiny_latent import BETAS, save_stable_diffusion
from tiny_pipelines import save_pipeline

import pscx
from pscx.config import ConfigError
from pscx.priors import SDXL, Flux, StableDiffusion
from pscx.runtime.notices import forget

TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", **BETAS, "prediction_type": "epsilon"}
LCM = {"_class_name": "LCMScheduler", **BETAS, "prediction_type": "epsilon"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_stable_diffusion(tmp_path_factory.mktemp("distilled") / "sd"))


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A copy with another scheduler."""

    def copy(scheduler: dict[str, Any]) -> Path:
        copied = Path(shutil.copytree(folder, tmp_path / "copy"))
        (copied / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
        return copied

    return copy


@pytest.mark.parametrize(
    ("scheduler", "sign"),
    [
        (TURBO, "its scheduler counts steps from the last one (timestep_spacing: trailing)"),
        (LCM, "its scheduler is the LCMScheduler"),
        ({**TURBO, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, ""),
        ({**TURBO, "timestep_spacing": "leading"}, ""),
    ],
)
def test_it_is_told(
    scheduler: dict[str, Any], sign: str, changed: Callable[[dict[str, Any]], Path], caplog: pytest.LogCaptureFixture
) -> None:
    forget()
    with caplog.at_level(logging.WARNING, "pscx"):
        prior = StableDiffusion(str(changed(scheduler)))
    assert prior.posterior_mean == (not sign)
    messages = [record.getMessage() for record in caplog.records if record.name == "pscx"]
    assert len(messages) == (1 if sign else 0)
    assert not sign or f"is distilled to a few steps ({sign}): its answer is one likely image" in messages[0]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"sampler": {"name": "dps", "steps": 1}}, "sampler must work without"),
        ({"sampler": {"name": "pigdm", "steps": 1}}, "sampler must work without"),
        ({"rows": "tweedie"}, "rows must work without"),
        ({"restoration_sampler": {"name": "dps", "steps": 1}}, "restoration_sampler must work without"),
    ],
)
def test_what_needs_the_mean_refuses_it(
    options: dict[str, Any], part: str, changed: Callable[[dict[str, Any]], Path]
) -> None:
    prior = {"name": "stable_diffusion", "path": str(changed(TURBO))}
    with pytest.raises(ConfigError, match=f"{part} the posterior mean, which a prior distilled to a few steps"):
        pscx.load_codec("paper-pixel", prior=prior, **options)
    few = pscx.load_codec("paper-pixel", prior=prior, sampler={"name": "ddrm", "steps": 1})
    assert not few.signal_codec.exact


def test_a_latent_consistency_model(changed: Callable[[dict[str, Any]], Path]) -> None:
    """Luo et al. 2023: the network is told the guidance; ``x0`` is that of diffusers' own step."""
    copied = changed(LCM)
    config = json.loads((copied / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 16}).eval()
        torch.nn.init.normal_(unet.time_embedding.cond_proj.weight)
        unet.save_pretrained(copied / "unet")
    prior = StableDiffusion(str(copied), guidance=4.0).conditioned("a cat")
    assert prior.evaluations == 1
    assert prior.caption is not None
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scheduler = LCMScheduler.from_pretrained(copied / "scheduler")
    scheduler.set_timesteps(4)
    t = scheduler.timesteps[0]
    angles = 3000 * 10000 ** (-torch.arange(8) / 7)
    waves = torch.cat([angles.sin(), angles.cos()])[None]
    with torch.no_grad():
        output = unet(x.float(), t, timestep_cond=waves, **prior.caption).sample
    wanted = scheduler.step(output, t, x.float(), return_dict=True).denoised
    sigma = prior.levels[int(t)].item()
    torch.testing.assert_close(prior.denoise(x * (1 + sigma**2) ** 0.5, sigma).float(), wanted, rtol=1e-4, atol=1e-4)


def test_others(tmp_path: Path) -> None:
    """FLUX.1-schnell and SDXL-Turbo; a consistency model of SDXL is refused."""
    assert not Flux(save_pipeline("flux", tmp_path / "schnell", guided=False)).posterior_mean
    folder = Path(save_pipeline("sdxl", tmp_path / "sdxl"))
    assert SDXL(str(folder)).posterior_mean
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**TURBO, "_class_name": "EulerAncestralDiscreteScheduler"})
    )
    assert not SDXL(str(folder)).posterior_mean
    config = json.loads((folder / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 16}).save_pretrained(folder / "unet")
    with pytest.raises(FileNotFoundError, match=r"unet.time_cond_proj_dim must be null"):
        SDXL(str(folder))
