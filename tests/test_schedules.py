"""Noise schedules computed without diffusers, compared with diffusers bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from pscx.priors import DDPM, Gaussian
from pscx.priors.ddpm_schedule import BETAS, DDPMSchedule
from pscx.priors.flow_schedules import FLOW, flow_of
from pscx.priors.schedules import load_scheduler, noise_levels, signal_shares

EMBEDDED = Path("pscx/priors/embedded/scheduler")
ENDS: tuple[dict[str, Any], ...] = (
    {},
    {"beta_start": 0.00085, "beta_end": 0.012},
    {"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.2},
    {"num_train_timesteps": 1},
)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("name", [*BETAS, None])
def test_shares_are_those_of_diffusers(name: str | None, ends: dict[str, Any], rescaled: bool, tmp_path: Path) -> None:
    """Of the options and of the file that diffusers writes; a single step cannot be rescaled.

    Rescaled ones have square roots, which are rounded here as IEEE 754 wants them, and by torch nearly so.
    """
    options = {**ends, "rescale_betas_zero_snr": rescaled} | ({} if name is None else {"beta_schedule": name})
    theirs, apart = DDPMScheduler(**options), 1e-6 if rescaled else 0
    theirs.save_pretrained(tmp_path)
    loaded = load_scheduler(tmp_path)
    assert type(loaded) is DDPMSchedule
    for ours in (DDPMSchedule.of(options), loaded):
        assert ours is not None
        assert ours.alphas_cumprod.dtype == torch.float32
        torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=apart, equal_nan=True)


@pytest.mark.parametrize(
    "options", [{"trained_betas": [0.5, 0.2]}, {"beta_schedule": "sigmoid"}, {"_class_name": "DDIMScheduler"}]
)
def test_other_schedules_are_left_to_diffusers(options: dict[str, Any], tmp_path: Path) -> None:
    assert DDPMSchedule.of(options) is None
    (tmp_path / "scheduler_config.json").write_text(json.dumps(options))
    assert type(load_scheduler(tmp_path)).__name__ == options.get("_class_name", "DDPMScheduler")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"num_train_timesteps": 0}, "num_train_timesteps must be an integer of at least 1, got 0"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps must be an integer of at least 1, got 'many'"),
        ({"beta_end": None}, "beta_end must be a number, got None"),
        ({"beta_end": 5}, "scheduler.beta_end must lie between 0 and 1, got 5"),
        (
            {"beta_start": -1.0, "beta_schedule": "scaled_linear"},
            "scheduler.beta_start must lie between 0 and 1, got -1",
        ),
        ({"beta_start": math.nan}, "scheduler.beta_start must lie between 0 and 1, got nan"),
    ],
)
def test_a_file_that_says_no_schedule(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        DDPMSchedule.of(options)


@pytest.mark.parametrize(
    "options", [{"beta_schedule": "round"}, {"trained_betas": "x"}, {"_class_name": "SchedulerMixin"}], ids=str
)
def test_what_diffusers_cannot_make_is_one_sentence(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match=r"^its scheduler is a \w+, which cannot be made of its options: ") as caught:
        load_scheduler(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"shift": None}, {"num_train_timesteps": [1]}, {"use_dynamic_shifting": True}])
def test_a_flow_s_numbers_are_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^scheduler\.\w+ must be a number, got "):
        flow_of({"_class_name": FLOW[0], "max_shift": "large", **options})


def test_a_saved_schedule_is_read_by_diffusers(tmp_path: Path) -> None:
    """Its file has what it had, under the same keys."""
    load_scheduler(EMBEDDED).save_pretrained(tmp_path)
    first, second = (json.loads((path / "scheduler_config.json").read_text()) for path in (EMBEDDED, tmp_path))
    assert first == second
    theirs = DDPMScheduler.from_pretrained(tmp_path)
    assert torch.equal(theirs.alphas_cumprod, load_scheduler(tmp_path).alphas_cumprod)
    assert theirs.config.prediction_type == "v_prediction"


def test_levels_of_the_priors() -> None:
    """Of the embedded prior, whose fingerprint is in all streams of the recipes, and of the Gaussian one."""
    theirs = DDPMScheduler.from_pretrained(EMBEDDED)
    assert torch.equal(DDPM(exact=True).levels, noise_levels(signal_shares(theirs)))
    assert torch.equal(Gaussian().levels, noise_levels(signal_shares(theirs)))
    assert DDPM(exact=True).fingerprint().hex() == "ae11f065cd02"
