"""Training of a prior: what is learnt, logged and exported."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from tiny import tiny_network
from torch import Tensor, nn

from pscx.data import CropData
from pscx.errors import PscxError
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.residual_unet import ResidualBlock
from pscx.priors.denoiser import Network, PixelDenoiser, load_denoiser
from pscx.runtime.quiet import quiet
from pscx.training import ExportPrior, TrainDDPM
from pscx.training.muon import MuonAdamW, as_matrix
from pscx.training.train import VALIDATION_LEVELS, noisy_weights, start


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
        reload_dataloaders_every_n_epochs=1,
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
    levels = module.levels[t].tolist()
    x0 = torch.cat([module.prior.denoise(image[i : i + 1] + s * noise[i : i + 1], s) for i, s in enumerate(levels)])
    # the error of v is that of x0 over sqrt(1 - a): Salimans and Ho 2022, appendix D
    expected = ((x0 - image).square() / (1 - a)).mean((1, 2, 3))
    torch.testing.assert_close(module.v_loss(image, t, noise), expected, rtol=1e-3, atol=1e-4)
    assert predicted.shape == image.shape


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="decay must lie in"):
        TrainDDPM(tiny_network(channels=12), scheduler(), decay=2.0)
    with pytest.raises(ValueError, match=r"prediction_type must be 'v_prediction', got 'epsilon'"):
        TrainDDPM(tiny_network(channels=12), scheduler("epsilon"))
    with pytest.raises(ValueError, match="optimizer must be one of muon, adamw, got 'Muon'"):
        TrainDDPM(tiny_network(channels=12), scheduler(), optimizer="Muon")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="warmup must be at least 0, got -1"):
        TrainDDPM(tiny_network(channels=12), scheduler(), warmup=-1)


def test_a_torch_without_muon_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"optimizer muon needs torch 2.9 or later, this is .*; use adamw"):
        TrainDDPM(tiny_residual(), scheduler(), optimizer="muon")


def test_pictures_of_samples_fit_the_network() -> None:
    module = TrainDDPM(tiny_residual(), scheduler())
    assert module.prior.stride == 4
    assert module.sample_grid(side=2, size=6, steps=2).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block_out_channels": (), "blocks": ()}, "network.block_out_channels must not be empty"),
        ({"blocks": (1, 2)}, "network.blocks must hold one number for each of block_out_channels (3), got 2"),
        ({"blocks": (1, 0, 1)}, "network.blocks must be at least 1, got 0"),
        ({"block_out_channels": (8, 8, -1)}, "network.block_out_channels must be at least 1, got -1"),
        ({"in_channels": 0}, "network.in_channels must be at least 1, got 0"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ResidualUNet(**options)


def test_epochs_of_the_same_crops_are_refused(image_folder: Path, tmp_path: Path) -> None:
    root = str(image_folder)
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", logger=False, num_sanity_val_steps=0)
    with pytest.raises(PscxError, match=r"reload_dataloaders_every_n_epochs must be 1 for data crops, got 0"):
        trainer.fit(TrainDDPM(tiny_residual(), scheduler()), CropData(root, root, crop=16, val_crops=2))


def tiny_residual(seed: int = 0) -> ResidualUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResidualUNet(12, 12, (8, 16), (1, 2))
        nn.init.normal_(network.tail.weight, std=0.1)
    return network


def test_a_residual_network_is_saved_and_loaded_with_its_class(tmp_path: Path) -> None:
    denoiser = PixelDenoiser(tiny_residual(), scheduler())
    denoiser.save(tmp_path)
    again = load_denoiser(tmp_path)
    assert isinstance(again.network, ResidualUNet)
    assert again.stride == 4
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.denoise(x, 0.7), denoiser.denoise(x, 0.7), rtol=1e-2, atol=1e-2)


def test_the_residual_network_knows_the_noise_level_not_the_step() -> None:
    """Two schedules that reach one noise level at different steps agree there."""
    network = tiny_residual()
    cosine = PixelDenoiser(network, scheduler())
    longer = PixelDenoiser(
        network,
        DDPMScheduler(num_train_timesteps=2000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
    )
    level, other = cosine.parameterisation.levels[[300, 600]].tolist()
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine.denoise(x, level), longer.denoise(x, level), rtol=1e-2, atol=1e-2)
    assert (cosine.denoise(x, level) - cosine.denoise(x, other)).abs().max() > 0.05


def test_muon_moves_convolutions_along_orthonormal_directions() -> None:
    """Jordan et al. 2024: the step is the gradient with its singular values made (nearly) equal."""
    weight = nn.Parameter(torch.zeros(6, 3, 2, 2).to(memory_format=torch.channels_last))
    bias = nn.Parameter(torch.zeros(6))
    optimizer = MuonAdamW([weight, bias], learning_rate=1.0)
    weight.grad = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    bias.grad = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])
    gradient = weight.grad.flatten(1)
    optimizer.step()
    step = -weight.detach().flatten(1)
    sizes = torch.linalg.svdvals(step) / (0.2 * 12**0.5)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.25
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    polar = left @ right
    assert (step * polar).sum() / (step.norm() * polar.norm()) > 0.97
    torch.testing.assert_close(bias.detach(), -bias.grad.sign() / 8, rtol=1e-4, atol=1e-4)  # the first step of Adam


def test_weights_below_the_finest_level_take_steps_of_adamw() -> None:
    module = TrainDDPM(tiny_residual(), scheduler(), optimizer="muon")
    network = module.prior.network
    assert isinstance(network, ResidualUNet)
    noisy = noisy_weights(network)
    weights = dict(network.named_parameters())
    coarse, fine = weights["body.0.first.weight"], weights["down.0.0.first.weight"]
    assert any(coarse is weight for weight in noisy)
    assert not any(fine is weight for weight in noisy)
    before = coarse.detach().clone()
    optimizer = MuonAdamW(network.parameters(), 0.1, noisy=noisy)
    gradient = torch.randn(coarse.shape, generator=torch.Generator().manual_seed(0))
    coarse.grad, fine.grad = gradient, torch.ones_like(fine)
    optimizer.step()
    torch.testing.assert_close(before - coarse.detach(), gradient.sign() / 20, rtol=1e-3, atol=1e-6)


def test_a_silent_channel_comes_back_in_training() -> None:
    """No input activates it, so a plain ReLU would let no gradient pass; the answer is that of a plain ReLU."""
    block = ResidualBlock(4)
    bias, added = block.get_parameter("first.bias"), block.get_parameter("second.bias")
    nn.init.constant_(bias, -100.0)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x + added[:, None, None])
    block(x).square().sum().backward()
    assert block.first.weight.grad is not None
    assert block.first.weight.grad.abs().max() > 0


def test_muon_resumes_where_it_was() -> None:
    def trained(stop: int | None) -> Tensor:
        weight = nn.Parameter(torch.zeros(4, 2, 3, 3).to(memory_format=torch.channels_last))
        optimizer = MuonAdamW([weight], learning_rate=0.1)
        for step in range(6):
            if step == stop:
                state = optimizer.state_dict()
                optimizer = MuonAdamW([weight], learning_rate=0.5)
                optimizer.load_state_dict(state)
            weight.grad = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(trained(stop=3), trained(stop=None), rtol=0, atol=0)


def test_a_weight_and_its_matrix_share_memory() -> None:
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    for layout in (weight, weight.to(memory_format=torch.channels_last)):
        matrix = as_matrix(layout, layout)
        assert matrix.shape == (2, 12)
        assert matrix.data_ptr() == layout.data_ptr()


def tiny_experts() -> NoiseExperts:
    experts = NoiseExperts(12, 12, (8, 16), (1, 2), switch=0.25)
    for expert, seed in ((experts.low, 0), (experts.high, 1)):
        expert.load_state_dict(tiny_residual(seed).state_dict())
    return experts


def test_each_noise_level_has_its_expert() -> None:
    experts = tiny_experts()
    x = torch.randn(5, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.9, 0.01, 0.26, 0.24, 3.0]).log()
    mixed = experts(x, levels).sample
    for i, expert in enumerate((experts.high, experts.low, experts.high, experts.low, experts.high)):
        torch.testing.assert_close(mixed[i : i + 1], expert(x[i : i + 1], levels[i : i + 1]).sample)
        torch.testing.assert_close(experts(x[i : i + 1], levels[i : i + 1]).sample, mixed[i : i + 1])


def test_one_network_starts_both_experts() -> None:
    experts, one = tiny_experts(), tiny_residual(2)
    start(experts, one)
    again = tiny_experts()
    start(again, experts)
    for expert in (experts.low, experts.high, again.low, again.high):
        for key, value in one.state_dict().items():
            assert torch.equal(expert.state_dict()[key], value)


def random_residual(seed: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> ResidualUNet:
    """No weight of it is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResidualUNet(12, 12, widths, blocks)
        for tensor in network.parameters():
            nn.init.normal_(tensor, std=0.1)
    return network


def test_a_network_grows_and_computes_what_it_did() -> None:
    small, large = random_residual(3, (8, 16), (1, 2)), random_residual(4, (12, 24), (2, 3))
    fresh = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    large.start_from(small)
    for name in ("head.weight", "up.0.0.first.weight", "body.0.second.weight"):
        old = len(small.state_dict()[name])
        assert torch.equal(large.state_dict()[name][old:], fresh[name][old:])  # what goes into new channels
    x, level = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([-2.0, -3.0])
    torch.testing.assert_close(large(x, level).sample, small(x, level).sample, rtol=1e-4, atol=1e-4)
    large(x, level).sample.square().mean().backward()

    def gradient(parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad

    still = {name.rsplit(".", 1)[0] for name, tensor in large.named_parameters() if not gradient(tensor).any()}
    assert still == {"down.0.1.first", "up.0.1.first", "body.2.first"}  # of new blocks, which change nothing yet
    one: Any = large  # of modules within modules
    new = [one.tail.weight.grad[:, 8:], one.grow[0].weight.grad[16:, :8], one.up[0][0].first.weight.grad[:8, 8:]]
    assert all(bool(tensor.any()) for tensor in new)  # what new channels hold is used as soon as it is trained


def test_a_network_starts_from_a_deeper_one() -> None:
    large, small = random_residual(5, (8, 16), (1, 2)), random_residual(6, (8, 16), (1, 1))
    small.start_from(large)
    weights = large.state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in small.state_dict().items())


def test_experts_of_two_shapes() -> None:
    one = tiny_residual(2)
    shape: dict[str, Any] = {"block_out_channels": (8, 16), "blocks": (1, 2)}
    shape |= {"low_block_out_channels": (16, 16), "low_blocks": (2, 2)}
    experts, again = NoiseExperts(**shape), NoiseExperts(**shape)
    start(experts, one)
    start(again, experts)
    x = torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    for level in (0.0, -3.0):  # over and under the border
        expected = one(x, torch.tensor([level])).sample
        for network in (experts, again):
            torch.testing.assert_close(network(x, torch.tensor([level])).sample, expected, rtol=1e-4, atol=1e-4)
    assert again.low.tail.weight.shape == (12, 16, 3, 3)


@pytest.mark.parametrize(
    ("network", "trained", "refusal"),
    [
        (
            lambda: ResidualUNet(12, 12, (8, 8), (1, 1)),
            tiny_residual,
            r"as wide \(\[8, 16\]\), got \[8, 8\]",
        ),
        (lambda: ResidualUNet(12, 12, (8,), (1,)), tiny_residual, "must have as many levels"),
        (lambda: ResidualUNet(3, 3, (8, 16), (1, 2)), tiny_residual, r"those of .*, \(12, 12\), got \(3, 3\)"),
        (tiny_residual, lambda: tiny_network(channels=12), "a ResidualUNet cannot start from a UNet2DModel"),
        (lambda: tiny_network(channels=12), tiny_network, "UNet2DModel must have the layers of model.network"),
    ],
)
def test_what_a_network_cannot_start_from(
    network: Callable[[], Network], trained: Callable[[], Network], refusal: str
) -> None:
    with pytest.raises(ValueError, match=refusal):
        start(network(), trained())


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"switch": 0}, "network.switch must be over 0 and finite, got 0"),
        ({"switch": float("inf")}, "network.switch must be over 0 and finite, got inf"),
        ({"low_block_out_channels": (8, 8)}, r"low_block_out_channels must hold one number .* \(3\), got \[8, 8\]"),
        ({"low_blocks": (1, 0, 1)}, r"low_blocks must hold one number of at least 1 .* \(3\), got \[1, 0, 1\]"),
    ],
)
def test_experts_that_cannot_be(options: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        NoiseExperts(**options)


def test_draws_stay_in_the_noise_range() -> None:
    module = TrainDDPM(tiny_network(channels=12), scheduler(), noise_range=(0.1, 0.3))
    drawn = module.levels[module.weights > 0]
    assert 0.1 <= float(drawn.min()) < 0.11
    assert 0.29 < float(drawn.max()) <= 0.3
    with pytest.raises(ValueError, match=r"noise_range must contain a noise level of the scheduler, got \[0.3, 0.1\]"):
        TrainDDPM(tiny_network(channels=12), scheduler(), noise_range=(0.3, 0.1))


def test_half_precision_keeps_what_little_noise_there_is() -> None:
    """In bfloat16 throughout, a change of the input by 2^-10 would be rounded away."""
    network = tiny_residual()
    x = torch.ones(1, 12, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        change = network.head(torch.ones(1, 13, 8, 8))  # what the head alone would answer
        first, second = (network(x * size, torch.tensor([-3.0])).sample for size in (1.0, 1.0 + 2.0**-10))
    assert change.dtype == torch.bfloat16
    assert not torch.equal(first, second)


def noise_of(rank: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Steps and noise of two batches in a process of that rank, all of which have one seed."""
    module, seen = TrainDDPM(tiny_network(channels=12), scheduler()), []

    def loss(image: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        seen.append((t, noise))
        return torch.zeros(len(image))

    monkeypatch.setattr(TrainDDPM, "global_rank", rank)
    monkeypatch.setattr(module, "v_loss", loss)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    torch.manual_seed(7)
    for index in range(2):
        module.training_step(torch.zeros(4, 3, 16, 16), index)
    return seen


def test_every_process_draws_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, second = (noise_of(rank, monkeypatch) for rank in (0, 0, 1))
    draws = [*first, *second]
    for one, other in itertools.combinations(draws, 2):
        assert not torch.equal(one[0], other[0])
        assert abs(float(torch.corrcoef(torch.stack([one[1].ravel(), other[1].ravel()]))[0, 1])) < 0.1
    for (t, noise), (same_t, same_noise) in zip(first, again, strict=True):
        assert torch.equal(t, same_t)
        assert torch.equal(noise, same_noise)
    assert torch.stack([noise for _, noise in draws]).std() == pytest.approx(1.0, abs=0.05)


def test_a_resumed_training_draws_what_an_undisturbed_one_does(image_folder: Path, tmp_path: Path) -> None:
    root, weights = str(image_folder), []
    for name, resumed in (("whole", None), ("resumed", tmp_path / "whole" / "epoch=1.ckpt")):
        seed_everything(1)
        module = TrainDDPM(tiny_network(channels=12), scheduler(), warmup=0)
        checkpoints = ModelCheckpoint(tmp_path / name, filename="{epoch}", save_top_k=-1)
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_epochs=4,
            accelerator="cpu",
            callbacks=[checkpoints],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            reload_dataloaders_every_n_epochs=1,
        )
        data = CropData(root, root, crop=16, batch_size=2, crops_per_epoch=4, val_crops=2)
        with quiet():
            trainer.fit(module, data, ckpt_path=resumed)
        weights.append(module.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
