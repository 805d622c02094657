from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracles
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from safetensors.torch import load_file, save_file
from tiny import tiny_network
from tiny_latent import no_hub  # noqa: F401  # a fixture
from torch import Tensor, nn
from torch.nn import functional

from pscx import read_image
from pscx.data.folder import BUNDLED
from pscx.networks.residual_unet import ResidualBlock
from pscx.priors import DDPM, Gaussian
from pscx.priors.ddpm import EMBEDDED
from pscx.priors.ddpm_schedule import DDPMSchedule
from pscx.priors.denoiser import PixelDenoiser, load_denoiser
from pscx.priors.photographs import AXES, RATES, VARIANCES, photograph_covariance
from pscx.priors.schedules import PREDICTIONS, log_levels, lognormal_weights, noise_levels
from pscx.runtime.hub import local_folder


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussian_covariance_is_its_formula() -> None:
    prior = Gaussian(correlation=0.8, color=0.3, deviation=0.6)
    places = list(itertools.product(range(3), range(2), range(4)))
    wanted = [
        [0.36 * (0.3 if c != d else 1.0) * 0.8 ** (abs(y - v) + abs(x - u)) for d, v, u in places] for c, y, x in places
    ]
    torch.testing.assert_close(prior.covariance(2, 4), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [1e-3, 0.03, 0.7, 4.0, 300.0, *Gaussian().levels[[0, 500, 999]].tolist()])
def test_gaussian_denoiser_is_the_dense_wiener_filter(sigma: float) -> None:
    """At levels on and off its grid; one instance asked for two sizes in turn, in float64 and float32."""
    prior = Gaussian(correlation=0.9, color=0.5, deviation=0.4)
    for height, width in ((2, 5), (4, 3), (2, 5)):
        x_t = random(3, 3, height, width)
        a = 1 / (1 + torch.tensor(sigma, dtype=torch.float64) ** 2)
        matrix = oracles.wiener(prior.covariance(height, width), a)
        wanted = (x_t.flatten(1) @ matrix.T).reshape(x_t.shape)
        x = x_t / a.sqrt()
        torch.testing.assert_close(prior.denoise(x, sigma), wanted, rtol=0, atol=1e-12)
        single = prior.denoise(x.float(), sigma)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, wanted.float(), rtol=1e-5, atol=1e-5)


def test_gaussian_draws_have_its_covariance() -> None:
    """5000 draws of 3x2x2: 12 random projections have its variance within 4 standard errors."""
    prior, generator = Gaussian(0.7, 0.5, 0.5), torch.Generator().manual_seed(1)
    draws = torch.cat([prior.draw(2, 2, generator) for _ in range(5000)]).flatten(1)
    directions = random(12, 12)
    variance = (directions * (prior.covariance(2, 2) @ directions)).sum(0)
    seen = (draws @ directions).square().mean(0)
    assert ((seen - variance).abs() < 4 * variance * (2 / 5000) ** 0.5).all()


def test_gaussian_blocks_are_stationary() -> None:
    """The covariance of a block is that of the same block inside a larger image, wherever it lies."""
    prior = Gaussian(0.9, 0.5, 0.5)
    place = torch.arange(3 * 5 * 6).reshape(3, 5, 6)[:, 1:4, 2:5].flatten()
    inside = prior.covariance(5, 6)[place][:, place]
    torch.testing.assert_close(prior.block_covariance(3), inside)


def test_gaussian_signal_is_the_image() -> None:
    prior, image = Gaussian(), random(2, 3, 4, 6)
    assert torch.equal(prior.to_image(prior.to_signal(image)), image)
    assert prior.signal_shape(4, 6) == tuple(prior.to_signal(image).shape[1:])
    assert prior.stride == 1


def test_gaussian_fingerprint_identifies_the_options() -> None:
    prints = [Gaussian(*options).fingerprint() for options in ((0.9, 0.5, 0.5), (0.8, 0.5, 0.5), (0.9, 0.4, 0.5))]
    assert len({*prints, Gaussian(0.9, 0.5, 0.6).fingerprint()}) == 4
    assert Gaussian(0.9, 0.5, 0.5).fingerprint() == prints[0]
    assert len(prints[0]) == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"correlation": 1.0}, r"correlation must lie in \[0, 1\), got 1.0"),
        ({"color": -0.1}, r"color must lie in \[0, 1\), got -0.1"),
        ({"deviation": 0.0}, "deviation must be over 0, got 0.0"),
    ],
)
def test_gaussian_refuses(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Gaussian(**options)


def test_noise_levels() -> None:
    """``x_t / sqrt(a)`` is the signal plus noise of that level."""
    levels = noise_levels(torch.tensor([0.8, 0.5, 0.1], dtype=torch.float64))
    torch.testing.assert_close(levels, torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64))
    assert (Gaussian().levels.diff() > 0).all()


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
def test_lognormal_weights(uniform: float) -> None:
    """They sum to 1, keep the uniform share, and the rest is log-normal: median and both quartiles of the level."""
    alphas = 1 / (1 + Gaussian().levels ** 2)
    weights = lognormal_weights(alphas, center=0.4, spread=0.7, uniform=uniform)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights.min()) >= uniform / len(alphas) * (1 - 1e-12)
    if uniform == 1:
        return
    below = ((weights - uniform / len(alphas)) / (1 - uniform)).cumsum(0)
    levels = noise_levels(alphas)
    for share, deviations in ((0.25, -0.6745), (0.5, 0.0), (0.75, 0.6745)):
        level = float(levels[int(torch.searchsorted(below, share))])
        assert level == pytest.approx(0.4 * torch.tensor(0.7 * deviations).exp().item(), rel=0.02)


def test_photograph_covariance() -> None:
    """Symmetric, positive semidefinite, stationary, and on each colour axis of its own variance and correlation."""
    covariance = photograph_covariance(6)
    assert torch.equal(covariance, covariance.T)
    spectrum = torch.linalg.eigvalsh(covariance)
    assert spectrum[0] > -1e-12 * spectrum[-1]
    place = torch.arange(3 * 36).reshape(3, 6, 6)[:, 2:5, 1:4].flatten()
    torch.testing.assert_close(covariance[place][:, place], photograph_covariance(3), rtol=1e-12, atol=1e-14)
    axes = functional.normalize(torch.tensor(AXES, dtype=torch.float64), dim=1)
    pixel, neighbour = (torch.arange(3) * 36 + offset for offset in (0, 6))
    variances = torch.tensor(VARIANCES, dtype=torch.float64)
    torch.testing.assert_close(axes @ covariance[pixel][:, pixel] @ axes.T, torch.diag(variances))
    neighbours = torch.diag(variances * (-torch.tensor(RATES, dtype=torch.float64)).exp())
    torch.testing.assert_close(axes @ covariance[pixel][:, neighbour] @ axes.T, neighbours)


class Oracle(nn.Module):
    """Stands for a ``UNet2DModel`` that knows the clean image and answers with the target of its prediction type.

    The targets are those of Ho et al. 2020 (noise) and Salimans and Ho 2022, section 4 (v). Where it also "learned
    the variance" the second half of its channels is not a number.
    """

    dtype = torch.float64

    def __init__(self, x0: Tensor, patch: int, scheduler: DDPMScheduler, learned_variance: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=3 * patch**2, out_channels=3 * patch**2, block_out_channels=(8, 8))
        self.x0, self.scheduler, self.learned_variance = (
            functional.pixel_unshuffle(x0, patch),
            scheduler,
            learned_variance,
        )

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        assert t.shape == (len(x),)
        a = self.scheduler.alphas_cumprod.double()[t][:, None, None, None]
        noise = (x - a.sqrt() * self.x0) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * self.x0
        answer = {"epsilon": noise, "v_prediction": velocity, "sample": self.x0}[self.scheduler.config.prediction_type]
        parts = [answer, torch.full_like(answer, torch.nan)] if self.learned_variance else [answer]
        return SimpleNamespace(sample=torch.cat(parts, 1))


@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_becomes_the_clean_signal(prediction: str, patch: int, learned_variance: bool) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction)
    x0, noise = random(2, 3, 4, 8), random(2, 3, 4, 8, seed=1)
    denoiser = PixelDenoiser(Oracle(x0, patch, scheduler, learned_variance), scheduler)
    for t in (0, 100, 900):
        sigma = float((1 / scheduler.alphas_cumprod[t].double() - 1).sqrt())
        torch.testing.assert_close(denoiser.denoise(x0 + sigma * noise, sigma), x0, rtol=0, atol=1e-10)


def tiny(channels: int = 12, outputs: int | None = None, prediction: str = "v_prediction") -> PixelDenoiser:
    """A network of random weights over two resolutions."""
    network = tiny_network(0, channels, outputs)
    return PixelDenoiser(network.eval(), DDPMScheduler(prediction_type=prediction, beta_schedule="squaredcos_cap_v2"))


@pytest.mark.parametrize(("channels", "outputs", "stride"), [(3, 3, 2), (3, 6, 2), (12, 12, 4), (12, 24, 4)])
@torch.no_grad()
def test_real_networks_keep_shape_and_dtype(channels: int, outputs: int, stride: int) -> None:
    denoiser = tiny(channels, outputs, "sample")
    assert denoiser.stride == stride
    for dtype in (torch.float32, torch.float64):
        x, sigma = random(2, 3, 8, 12).to(dtype), float(denoiser.parameterisation.levels[500])
        answer = denoiser.denoise(x * (1 + sigma**2) ** 0.5, sigma)
        assert answer.shape == x.shape
        assert answer.dtype == dtype
    patch = round((channels / 3) ** 0.5)
    shuffled = functional.pixel_unshuffle(random(2, 3, 8, 12).float(), patch)
    raw = denoiser.network(shuffled, torch.tensor([500, 500])).sample[:, :channels]
    torch.testing.assert_close(answer.float(), functional.pixel_shuffle(raw, patch))


def test_pixel_denoiser_refuses() -> None:
    scheduler = DDPMScheduler()
    network = tiny().network
    network.register_to_config(in_channels=5)
    with pytest.raises(ValueError, match=r"network.in_channels must be 3, 12, 27 or another 3 p\^2, got 5"):
        PixelDenoiser(network, scheduler)
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon, v_prediction, sample, got 'flow'"):
        PixelDenoiser(tiny().network, scheduler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved prior in the layout of a ``DDPMPipeline``."""
    tiny().save(tmp_path / "prior")
    return tmp_path / "prior"


@pytest.mark.parametrize("layout", ["pipeline", "root"])
@torch.no_grad()
def test_saved_priors_load_as_they_were(folder: Path, layout: str) -> None:
    """Weights are those of the network rounded to float16; the schedule and the prediction type come back too."""
    if layout == "root":
        for name in ("unet", "scheduler"):
            shutil.copytree(folder / name, folder.parent / "root", dirs_exist_ok=True)
    prior = DDPM(str(folder if layout == "pipeline" else folder.parent / "root"))
    rounded = tiny()
    rounded.network.half().float()
    x = random(1, 3, 8, 8)
    torch.testing.assert_close(prior.denoise(x, 0.7), rounded.denoise(x, 0.7), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior.levels, rounded.parameterisation.levels, rtol=1e-12, atol=0)
    assert prior.stride == 4
    assert prior.signal_shape(8, 12) == (3, 8, 12)
    assert torch.equal(prior.to_image(prior.to_signal(x)), x)
    assert torch.equal(prior.block_covariance(4), photograph_covariance(4))
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert not prior.denoiser.network.training


def test_fingerprint_follows_the_weights(folder: Path) -> None:
    """The same after every load and after saving again; another when one weight or the schedule changes."""
    prior = DDPM(str(folder))
    assert DDPM(str(folder)).fingerprint() == prior.fingerprint()
    assert isinstance(prior.denoiser, PixelDenoiser)
    prior.denoiser.save(folder.parent / "again")
    assert DDPM(str(folder.parent / "again")).fingerprint() == prior.fingerprint()
    before = prior.fingerprint()
    with torch.no_grad():
        prior.denoiser.network.conv_in.weight[1, 2, 0, 1] += 2**-10
    assert prior.fingerprint() != before
    other = DDPM(str(folder))
    other.levels = other.levels * (1 - 1e-6)
    assert other.fingerprint() != before


def test_fingerprint_tells_what_is_predicted(folder: Path) -> None:
    """Three networks of the same weights and schedule that are used for three denoisers."""
    prints = set()
    for prediction in PREDICTIONS:
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": prediction}))
        prints.add(DDPM(str(folder)).fingerprint())
    assert len(prints) == 3


def test_a_weight_that_is_not_there(folder: Path) -> None:
    """Refused, and not filled with random numbers."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights[max(weights)]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(FileNotFoundError, match=r"unet/config\.json has no weights for"):
        load_denoiser(folder)


@pytest.mark.parametrize("missing", ["everything", "unet", "scheduler", "weights", "folder"])
def test_what_cannot_be_loaded_is_one_sentence(folder: Path, missing: str) -> None:
    """Names the path and the layouts that are looked for."""
    if missing == "folder":
        folder = folder / "nowhere"
    elif missing == "everything":
        shutil.rmtree(folder)
        folder.mkdir()
    elif missing == "weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    else:
        shutil.rmtree(folder / missing)
    with pytest.raises(FileNotFoundError) as caught:
        load_denoiser(folder)
    sentence = str(caught.value)
    assert sentence.startswith(f"no diffusers pixel prior at '{folder}': expected a local folder with unet/ and")
    assert "\n" not in sentence


def test_a_root_layout_without_its_scheduler(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scheduler_config.json is missing\)"):
        load_denoiser(folder / "unet")


SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    "kind", [DDPMScheduler, DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_schedulers_of_other_classes(kind: type[SchedulerMixin], prediction: str, folder: Path) -> None:
    """The schedule and the prediction type are those of the config, whatever way of sampling it is for."""
    kind(**SCALED, prediction_type=prediction).save_pretrained(folder / "scheduler")
    denoiser = load_denoiser(folder)
    assert type(denoiser.scheduler) is (DDPMSchedule if kind is DDPMScheduler else kind)
    assert denoiser.prediction == prediction
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(denoiser.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_every_beta_schedule_of_ddpm(schedule: str, folder: Path) -> None:
    scheduler = DDPMScheduler(beta_schedule=schedule)
    scheduler.save_pretrained(folder / "scheduler")
    shares = load_denoiser(folder).alphas_cumprod
    assert torch.equal(shares, scheduler.alphas_cumprod.double())
    assert (shares.diff() < 0).all()


def test_betas_that_were_trained(folder: Path) -> None:
    DDPMScheduler(num_train_timesteps=3, trained_betas=[0.5, 0.2, 0.1]).save_pretrained(folder / "scheduler")
    wanted = torch.tensor([0.5, 0.4, 0.36], dtype=torch.float64)
    torch.testing.assert_close(load_denoiser(folder).alphas_cumprod, wanted, rtol=1e-6, atol=0)


def test_a_schedule_that_ends_in_noise_alone(folder: Path) -> None:
    """Lin et al. 2024: the last step holds no signal; its noise level is finite, and the others as they were."""
    scheduler = DDIMScheduler(**SCALED, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    scheduler.save_pretrained(folder / "scheduler")
    assert scheduler.alphas_cumprod[-1] == 0
    shares = load_denoiser(folder).alphas_cumprod
    assert shares[-1] == 2**-24
    assert torch.equal(shares[:-1], scheduler.alphas_cumprod[:-1].double())
    assert noise_levels(shares).isfinite().all()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "FlowMatchEulerDiscreteScheduler",
            "its scheduler is a FlowMatchEulerDiscreteScheduler, which has no variance",
        ),
        ("Path", "its scheduler is a Path, which this version of diffusers does not have"),
        ("UNet2DModel", "its scheduler is a UNet2DModel, which this version of diffusers does not have"),
    ],
)
def test_schedulers_that_are_no_schedule(name: str, sentence: str, folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text(f'{{"_class_name": "{name}"}}')
    with pytest.raises(FileNotFoundError, match=sentence):
        load_denoiser(folder)


@pytest.mark.usefixtures("no_hub")
def test_no_hub_is_one_sentence() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        DDPM("google/ddpm-celebahq-256")
    sentence = str(caught.value)
    assert sentence.startswith("no diffusers pixel prior at 'google/ddpm-celebahq-256': expected a local folder")
    assert "the hub returned none" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("nested", [True, False])
def test_a_hub_id_is_fetched_once(nested: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs and safetensors are asked for, and nothing else where a repository has them; both layouts."""
    home = folder if nested else folder.parent / "root"
    for name in () if nested else ("unet", "scheduler"):
        shutil.copytree(folder / name, home, dirs_exist_ok=True)
    asked = []

    def snapshot(repository: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((repository, [p for p in allow_patterns if not p.endswith(".json")], ignore_patterns))
        return str(home)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert DDPM("someone/prior").fingerprint() == DDPM(str(folder)).fingerprint()
    assert asked == [("someone/prior", ["*.safetensors"], [])]


def test_a_hub_id_with_older_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a repository has no safetensors, torch's own format is read, weights only."""
    wanted = DDPM(str(folder)).fingerprint()
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    asked = []

    def snapshot(repository: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns[-1])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert DDPM("someone/prior").fingerprint() == wanted
    assert asked == ["*.safetensors", "*.bin"]


@pytest.mark.parametrize(
    "error", [RuntimeError("gone away.\nTry later."), OSError("gone away"), ValueError("gone away")]
)
def test_a_failure_of_the_hub_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kind of error its client raises."""

    def snapshot(repository: str, **patterns: list[str]) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(FileNotFoundError) as caught:
        local_folder("someone/prior", ["*"])
    assert str(caught.value) == "there is no such folder, and the hub returned none: gone away"


def test_the_shipped_prior_is_calm_at_every_noise_level() -> None:
    """Pure noise shows no image, whatever level it is said to have: what is made of it is no larger than an image."""
    prior = DDPM()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in prior.levels[[400, 700, 900, 990, 997, 998, 999]].tolist():
        assert float(prior.denoise(x * (1 + sigma**2) ** 0.5, sigma).abs().max()) < 2, sigma


def test_a_network_is_told_no_level_over_250() -> None:
    alphas = torch.tensor([0.5, 1e-4, 1e-5, 1e-9], dtype=torch.float64)
    levels = log_levels(alphas)
    assert float(levels[0]) == 0
    assert abs(float(levels[1]) - log(1e4) / 2) < 1 / 4096
    assert levels[2:].tolist() == [round(log(250) * 4096) / 4096] * 2


def test_no_block_of_the_embedded_prior_is_silent() -> None:
    """A block whose ReLU lets nothing through, on photographs at all levels of noise, adds a constant and no more."""
    denoiser = load_denoiser(EMBEDDED)
    heard: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[Any, Any, Tensor], None]:
        def keep(layer: Any, given: Any, answer: Tensor) -> None:
            heard[name] = heard.get(name, torch.zeros(answer.shape[1])).maximum(answer.amax((0, 2, 3)))

        return keep

    blocks = {name: part for name, part in denoiser.named_modules() if isinstance(part, ResidualBlock)}
    for name, block in blocks.items():
        block.first.register_forward_hook(listen(name))
    photographs = [read_image(file)[:64, :64] for file in sorted(BUNDLED.glob("*.png"))[:4]]
    x = torch.stack([torch.from_numpy(one.copy()).movedim(-1, 0).float() / 127.5 - 1 for one in photographs])
    with torch.no_grad():
        for level in (0.02, 0.1, 0.2, 0.5, 1.5):
            denoiser.denoise(x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), level)
    assert heard.keys() == blocks.keys()
    shares = {name: float((most > 0).float().mean()) for name, most in heard.items()}
    assert min(shares.values()) > 0.25, shares
