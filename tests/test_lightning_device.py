"""Evaluation, learning and training on a device that Lightning does not know by itself, and ``--device``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning_device
import pytest
import torch
import yaml
from golden_streams import golden_image
from lightning.pytorch import Trainer
from PIL import Image
from pretend_device import NAME, alone, backend, computed
from tiny import CODEC, EXACT, save_prior, tiny_network, write_codec

import pscx
from pscx import Decompressor, PscxError, load_codec
from pscx.api import memory_of
from pscx.cli.main import main
from pscx.data import CropData
from pscx.execution import proof
from pscx.execution.placement import chosen
from pscx.priors import DDPM
from pscx.runtime import devices, homes
from pscx.runtime.filling import SHARE
from pscx.training import TrainDDPM

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
CONFIG = "configs/quickstart.yaml"


@pytest.fixture(autouse=True)
def registered() -> None:
    lightning_device.register()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(golden_image(16, 24)).save(folder / "a.png")
    return folder


def evaluated(folder: Path, root: Path, *options: str) -> Path:
    where = ["--data.root", str(folder), "--trainer.default_root_dir", str(root)]
    assert main(["test", "--config", CONFIG, "--model.codec.iterations", "3", *where, *options]) == 0
    return root


def test_the_readmes_evaluation_with_no_option_but_the_accelerator(
    photographs: Path, tmp_path: Path, standin: torch.device
) -> None:
    """The stream is the CPU's to the last byte, and so are the pixels."""
    here = evaluated(photographs, tmp_path / "here", "--device", "cpu")
    assert not computed["aten::convolution"]
    there = evaluated(photographs, tmp_path / "there", "--trainer.accelerator", NAME)
    assert computed["aten::convolution"] > 100
    for name in ("streams/a.pscx", "reconstructions/a.png"):
        assert (there / name).read_bytes() == (here / name).read_bytes()


@pytest.mark.parametrize("options", [[], ["--device", "auto"], ["--device", NAME], [f"--device={NAME}:0"]])
def test_a_device_is_a_short_form_and_the_default_is_the_best(
    options: list[str], photographs: Path, tmp_path: Path, standin: torch.device
) -> None:
    root = evaluated(photographs, tmp_path / "run", *options)
    assert computed["aten::convolution"] > 100
    saved = yaml.safe_load((root / "config.yaml").read_text())["trainer"]
    assert (saved["accelerator"], saved["strategy"]) == (NAME, NAME)
    assert saved["devices"] in (1, [0])


@pytest.mark.parametrize(
    ("options", "trainer", "axis", "wanted"),
    [
        ([], {}, [], [NAME, NAME]),
        (["--device", NAME], {}, [], [NAME, NAME]),
        (["--device", "cpu"], {}, [], ["cpu", "cpu"]),
        ([], {"accelerator": "cpu"}, [], ["cpu", "cpu"]),
        ([], {}, ["cpu", NAME], ["cpu", "cpu", NAME, NAME]),
    ],
    ids=["best", "named", "cpu", "named in the base", "axis"],
)
@pytest.mark.usefixtures("standin")
def test_cells_run_on_the_device_that_is_named_for_them(
    options: list[str],
    trainer: dict[str, str],
    axis: list[str],
    wanted: list[str],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their ids, which name folders, are the same on any device that no file names."""
    ran: list[dict[str, Any]] = []

    def take_note(command: str, tree: dict[str, Any], versions: bool) -> int:
        ran.append(tree)
        return 1

    monkeypatch.setattr("pscx.ablation.launch.run_configuration", take_note)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**yaml.safe_load(CODEC), "trainer": trainer}))
    rate = "model.codec.quantizer.step"
    axes = {rate: [0.5, 0.2], **({"trainer.accelerator": axis} if axis else {})}
    baseline = {"trainer.accelerator": axis[0]} if axis else {}
    grid = {"base": "base.yaml", "axes": axes, "rate": rate, "baseline": baseline}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    command = ["ablate", "--config", str(tmp_path / "grid.yaml"), "--data.root", str(photographs)]
    command += ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main([*command, *options]) == 1  # nothing was run
    assert sorted(tree["trainer"]["accelerator"] for tree in ran) == wanted
    for tree in ran:
        assert tree["trainer"].get("strategy") == (NAME if tree["trainer"]["accelerator"] == NAME else None)
    folders = {tree["trainer"]["default_root_dir"] for tree in ran}
    ran.clear()
    assert main([*command, "--device", "cpu"]) == (2 if axis else 1)
    assert {tree["trainer"]["default_root_dir"] for tree in ran} == (set() if axis else folders)


@pytest.mark.usefixtures("standin")
def test_files_there_and_back(photographs: Path, tmp_path: Path) -> None:
    config = write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", seed=0)))
    image, found = str(photographs / "a.png"), {}
    for name in ("cpu", "auto", NAME):
        computed.clear()
        stream, picture = tmp_path / f"{name}.pscx", tmp_path / f"{name}.png"
        assert main(["compress", image, "--config", config, "-o", str(stream), "--device", name]) == 0
        prior = ["--prior", str(tmp_path / "prior")]
        assert main(["decompress", str(stream), "-o", str(picture), "--device", name, *prior]) == 0
        found[name] = stream.read_bytes(), picture.read_bytes()
        assert (computed["aten::convolution"] > 0) == (name != "cpu")
    assert found["cpu"] == found["auto"] == found[NAME]


@pytest.mark.usefixtures("standin")
@alone
def test_two_steps_of_a_training(image_folder: Path) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(prediction_type="v_prediction")
    module = TrainDDPM(network=tiny_network(), scheduler=scheduler, optimizer="adamw", warmup=1)
    before = [weight.clone() for weight in module.parameters()]
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = dict.fromkeys(off, False)
    trainer = Trainer(accelerator=NAME, strategy=NAME, max_steps=2, reload_dataloaders_every_n_epochs=1, **options)
    computed.clear()
    root = str(image_folder)
    trainer.fit(module, CropData(root, root, crop=16, batch_size=2, crops_per_epoch=4, val_crops=2))
    assert trainer.global_step == 2
    assert computed["aten::convolution_backward"] > 0
    after = [weight.cpu() for weight in module.parameters()]
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(bool(weight.isfinite().all()) for weight in after)


def sentence(*args: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with code 2, in one line."""
    assert main(list(args)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gpu", "device must be auto, cpu, cuda, cuda:1, mps or another that torch knows, got 'gpu'"),
        ("meta", "device must be auto, cpu, cuda, cuda:1, mps or another that torch knows, got 'meta'"),
        (f"{NAME}:3", f"device {NAME}:3 does not exist: this machine has {NAME}:0"),
        ("cuda", "device cuda cannot be used: torch "),
    ],
)
@pytest.mark.usefixtures("standin")
def test_an_unknown_device_is_one_sentence(
    name: str, wanted: str, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    image, config = str(photographs / "a.png"), ["--config", CONFIG]
    assert wanted in sentence("compress", image, "--device", name, "-o", "-", capsys=capsys)
    assert wanted in sentence("test", *config, "--data.root", str(photographs), "--device", name, capsys=capsys)


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its driver is there, and torch is a build for the CPU, or finds nothing."""
    monkeypatch.setattr(devices, "accelerator", lambda: None)
    told: list[str] = []
    monkeypatch.setattr("pscx.execution.placement.tell", told.append)
    monkeypatch.setattr("pscx.execution.placement.accelerator", lambda: None)
    monkeypatch.setattr(devices, "DRIVERS", (str(tmp_path),))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert chosen("auto") == torch.device("cpu")
    assert "install one for the GPU" in told[0]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    chosen("auto")
    assert "see to its driver" in told[1]
    monkeypatch.setattr(devices, "DRIVERS", ())
    chosen("auto")
    assert len(told) == 2


def test_a_device_with_too_little_memory(
    standin: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    codec = load_codec(write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", seed=0))), device=NAME)
    data = codec.compress(golden_image(16, 16))
    monkeypatch.setattr(backend, "capacity", 1000)
    with pytest.raises(pscx.ImageError, match=f"encoding 16x16 pixels takes about .* 0.0 GB are left on {NAME}:0"):
        codec.compress(golden_image(16, 16))
    with pytest.raises(PscxError, match="decoding takes about"):
        Decompressor(codec.signal_codec.prior, device=NAME).decompress(data)  # type: ignore[attr-defined]
    codec.to("cpu")
    assert codec.compress(golden_image(16, 16)) == data


def test_a_device_whose_arithmetic_is_off_is_not_taken(
    standin: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Refused by name for an exact codec, and left out by ``auto``."""
    text = EXACT.format(path=save_prior(tmp_path / "prior", seed=0))
    config = write_codec(tmp_path, text)
    told: list[str] = []
    monkeypatch.setattr("pscx.execution.placement.tell", told.append)
    off = {**proof.PARTS, "means": lambda x: x.mean() + (x.device.type == NAME)}
    monkeypatch.setattr(proof, "PARTS", off)
    proof.check_arithmetic.cache_clear()
    try:
        with pytest.raises(PscxError, match=f"means on {NAME}:0 are not the CPU's to the last bit"):
            load_codec(config, device=NAME)
        assert load_codec(config, device="auto").signal_codec.device == torch.device("cpu")
        assert f"although there is an accelerator ({NAME}): means on" in told[0]
        inexact = write_codec(tmp_path, text.replace("exact: true", "exact: false"))
        assert load_codec(inexact, device=NAME).signal_codec.device == standin
    finally:
        proof.check_arithmetic.cache_clear()


def test_a_device_without_float64(standin: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The network computes there, all else on the CPU, and one sentence says so."""
    told: list[str] = []
    monkeypatch.setattr("pscx.execution.placement.tell", told.append)
    for place in ("pscx.priors.base", "pscx.execution.placement", "pscx.execution.proof", "pscx.exact.products"):
        monkeypatch.setattr(f"{place}.home_of", lambda device: torch.device("cpu"))
    config = write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", seed=0)))
    wanted = load_codec(config).compress(golden_image(16, 16))
    codec = load_codec(config, device=NAME)
    assert codec.signal_codec.device == torch.device("cpu")
    computed.clear()
    assert codec.compress(golden_image(16, 16)) == wanted
    assert computed["aten::convolution"] > 0
    assert told == [f"{standin} has no float64: the network computes there in float32, all else on the CPU"]


def test_float64_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apple's MPS answers."""
    zeros = torch.zeros

    def refuse(*size: object, device: torch.device, **options: object) -> torch.Tensor:
        if device.type == "meta":
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return zeros(*size, device=device, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "zeros", refuse)
    assert homes.home_of.__wrapped__(torch.device("meta")) == torch.device("cpu")
    assert homes.home_of.__wrapped__(torch.device("cpu")) == torch.device("cpu")


def test_the_benchmark_of_accelerators(standin: torch.device, tmp_path: Path) -> None:
    """Its short form: the CPU's bytes and pixels, at most four transfers a segment, and a file that is dated."""
    import accelerator

    options = ["--device", NAME, "--short", "--small", "16", "--large", "24", "--output", str(tmp_path)]
    file = accelerator.main(options)
    head, line = (text for text in file.read_text().splitlines() if text.startswith(("| recipe", "| fast")))
    found = dict(zip(head.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))
    assert (found["payload"], found["pixels"]) == ("True", "True")
    assert 0 < int(found["transfers"]) <= 4
    assert file.name.endswith(f"{NAME}-short.md")


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, list[int]]:
    """An exact codec, three photographs, and how many samples each call of its network is given from then on."""
    config = write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", seed=0)))
    folder = tmp_path / "three"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(golden_image(136, 128)[:, :, [number % 3, 1, 2]]).save(folder / f"{number}.png")
    sizes: list[int] = []
    plain = DDPM.denoise

    def counted(self: DDPM, x: torch.Tensor, sigma: float) -> torch.Tensor:
        sizes.append(len(x))
        return plain(self, x, sigma)

    monkeypatch.setattr(DDPM, "denoise", counted)
    return config, folder, sizes


def test_free_memory_says_how_many_images_share_a_call(
    three: tuple[str, Path, list[int]], standin: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``compress``, ``decompress`` and ``test``; on the CPU images of this size are done one by one."""
    config, folder, sizes = three
    codec = load_codec(config)
    needs = memory_of(codec.signal_codec, 136, 128)
    most, found = {}, []
    for name, device, images in (("cpu", "cpu", 0.0), ("all", NAME, 3.5), ("two", NAME, 2.5)):
        monkeypatch.setattr(backend, "capacity", int(images * needs / SHARE))
        out = tmp_path / name
        for command in (
            ["compress", str(folder), "-o", f"{out}/streams/", "--config", config],
            ["decompress", f"{out}/streams", "-o", f"{out}/pictures/", "--prior", str(tmp_path / "prior")],
            ["test", "--config", config, "--data.root", str(folder), "--trainer.default_root_dir", f"{out}/test"],
        ):
            sizes.clear()
            assert main([*command, "--device", device]) == 0
            most[name, command[0]] = max(sizes)
        streams = [(out / kind / f"{i}.pscx").read_bytes() for kind in ("streams", "test/streams") for i in range(3)]
        found.append(streams)
    assert all(streams == found[0] for streams in found)
    for command_name in ("compress", "decompress", "test"):
        alone = most["cpu", command_name]
        assert [most[name, command_name] / alone for name in ("cpu", "all", "two")] == [1, 3, 2]
