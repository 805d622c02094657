"""Settings of torch that change what products are: exact networks see each change, switch it off, or refuse it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import EXACT, save_prior, write_codec
from torch import Tensor, nn

from pscx import PscxError, load_codec, stream_info
from pscx.cli.main import main
from pscx.codecs import Account
from pscx.codecs.counted import CountedPrior
from pscx.exact import ExactConvolution, check_convolutions, check_products, exactly, make_exact
from pscx.exact.settings import autocast, permitted_rounding, settings
from pscx.execution.arithmetic import arithmetic_of
from pscx.priors import DDPM, Gaussian
from pscx.samplers.pullback import denoise_with_pullback

Pixels = NDArray[np.uint8]
CPU = torch.device("cpu")
NEW = hasattr(torch.backends, "fp32_precision")  # torch 2.9


def set_precision(name: str, value: str) -> Callable[[], None]:
    def change() -> None:
        place = torch.backends
        *path, last = name.split(".")
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)

    return change


CHANGES: dict[str, Callable[[], object]] = {
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "tf32 in cuBLAS": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "tf32 in cuDNN": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "threads": lambda: torch.set_num_threads(3 - torch.get_num_threads()),
}
NEWER = {
    "of all": set_precision("fp32_precision", "tf32"),
    "of oneDNN's convolutions": set_precision("mkldnn.conv.fp32_precision", "bf16"),
    "of oneDNN's products": set_precision("mkldnn.matmul.fp32_precision", "tf32"),
    "of cuBLAS": set_precision("cuda.matmul.fp32_precision", "tf32"),
}
CHANGES |= NEWER if NEW else {}
REFUSED = {"medium": "bf16", "of all": "tf32", "of oneDNN's convolutions": "bf16", "of oneDNN's products": "tf32"}
REFUSED |= {"high": "tf32"} if NEW else {}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test changes is undone; the new settings first, as the old ones raise beside them."""
    threads, names = torch.get_num_threads(), ("matmul", "conv")
    try:
        yield
    finally:
        if NEW:
            torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]  # the stubs lack it
            for name in names:
                getattr(torch.backends.mkldnn, name).fp32_precision = "none"
            torch.backends.cuda.matmul.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
        check_convolutions.cache_clear()
        check_products.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior"), 1)


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_is_seen(name: str) -> None:
    before = settings(CPU)
    assert settings(CPU) == before
    CHANGES[name]()
    assert settings(CPU) != before


def test_autocast_is_seen_in_its_thread() -> None:
    before = settings(CPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert settings(CPU) != before
        assert autocast(CPU) == torch.bfloat16
    assert settings(CPU) == before
    assert autocast(CPU) is None


@pytest.mark.parametrize("name", ["deterministic", "threads"])
@pytest.mark.parametrize("operation", ["conv2d", "linear"])
def test_a_machine_is_checked_again_when_a_setting_changed(
    name: str, operation: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that rounds under the new setting alone: what passed before is refused, not used."""
    prior, x = DDPM(folder, exact=True), torch.zeros(1, 3, 16, 16)
    prior.denoise(x, 5)
    plain, before = getattr(nn.functional, operation), settings(CPU)

    def rounding(x: Tensor, w: Tensor, **options: object) -> Tensor:
        result: Tensor = plain(x if settings(CPU) == before else x.bfloat16().to(x.dtype), w, **options)
        return result

    monkeypatch.setattr(nn.functional, operation, rounding)
    prior.denoise(x, 5)
    CHANGES[name]()
    with pytest.raises(PscxError, match="of integers are not exact on cpu"):
        prior.denoise(x, 5)


@pytest.mark.parametrize("name", [name for name in CHANGES if name in REFUSED])
def test_settings_that_permit_rounding_are_refused(name: str, folder: str) -> None:
    """Whether this processor makes use of them or not: a stream must decode on one that does.

    The refusal names the setting, also where a trial would have failed.
    """
    prior, x = DDPM(folder, exact=True), torch.zeros(1, 3, 16, 16)
    wanted = prior.denoise(x, 5)
    CHANGES[name]()
    refusals: list[Callable[[], object]] = [
        lambda: prior.denoise(x, 5),
        lambda: check_convolutions(CPU),
        lambda: check_products(CPU),
    ]
    for refused in refusals:
        with pytest.raises(PscxError, match=rf"torch\.backends\.mkldnn\.\w+ may round to {REFUSED[name]} on cpu: call"):
            refused()
    if name in ("high", "medium"):
        torch.set_float32_matmul_precision("highest")
        assert torch.equal(prior.denoise(x, 5), wanted)


@pytest.mark.parametrize("name", ["high", "tf32 in cuBLAS", *(["of cuBLAS"] if NEW else [])])
def test_tf32_is_known_of_a_gpu(name: str) -> None:
    """cuBLAS chooses by shape whether it uses it, so a trial that passes says nothing."""
    cuda = torch.device("cuda")
    assert permitted_rounding(cuda) is None
    CHANGES[name]()
    assert permitted_rounding(cuda) == ("cuda.matmul", "tf32")
    assert name == "high" or permitted_rounding(CPU) is None


def test_autocast_does_not_reach_an_exact_network(folder: str, astronaut: Pixels, tmp_path: Path) -> None:
    """The stream and its pixels are those without; a layer asked by itself would have noticed."""
    codec = load_codec(write_codec(tmp_path, EXACT.format(path=folder)))
    photo = astronaut[40:72, 30:62]
    wanted = codec.compress(photo)
    with torch.autocast("cpu", torch.bfloat16):
        assert codec.compress(photo) == wanted
        assert codec.compress_many([photo, photo]) == [wanted, wanted]
        inside = codec.decompress(wanted)
        with pytest.raises(PscxError, match="of integers are not exact on cpu"):
            check_convolutions(CPU)
        with exactly(CPU):
            check_convolutions(CPU)
    assert np.array_equal(inside, codec.decompress(wanted))


@pytest.mark.parametrize(("precision", "code"), [("bf16-mixed", 0), ("bf16-true", 2), ("64-true", 2)])
def test_precisions_of_the_trainer(
    precision: str, code: int, folder: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mixed precision is autocast, which is switched off; a network in another dtype is refused before a stream is."""
    config = write_codec(tmp_path, EXACT.format(path=folder))
    run = ["test", "--config", config, "--data.root", str(image_folder), "--trainer.precision", precision]
    assert main([*run, "--trainer.default_root_dir", str(tmp_path / "run")]) == code
    streams = sorted((tmp_path / "run").rglob("*.pscx"))
    if code:
        assert "an exact prior computes in float32" in capsys.readouterr().err
        assert not streams
    else:
        assert len(streams) == 3
        assert all(load_codec(config).decompress(path.read_bytes()).any() for path in streams)


def test_a_stream_in_floats_tells_of_autocast_and_rounding(astronaut: Pixels) -> None:
    plain = arithmetic_of(Gaussian())
    with torch.autocast("cpu", torch.bfloat16):
        assert arithmetic_of(Gaussian()) == f"{plain}, autocast bfloat16"
    torch.set_float32_matmul_precision("medium")
    assert arithmetic_of(Gaussian()) == f"{plain}, bf16 products"
    data = load_codec("paper-pixel", prior="gaussian", samples=2, iterations=1, sampler={"steps": 1}).compress(
        astronaut[:16, :16]
    )
    assert stream_info(data)["arithmetic"].endswith(", bf16 products")


def network(kind: str) -> nn.Module:
    return {"linear": nn.Linear(4, 4), "norm": nn.GroupNorm(2, 4), "convolution": nn.Conv2d(4, 4, 1)}[kind]


@pytest.mark.parametrize("kind", ["linear", "norm", "convolution"])
def test_an_exact_network_refuses_a_gradient(kind: str) -> None:
    """With convolutions or without; where none is taken it computes as ever."""
    net = nn.Sequential(network(kind).requires_grad_(False))
    make_exact(net)
    x = torch.linspace(-1, 1, 16).reshape(1, 4, 2, 2) if kind != "linear" else torch.linspace(-1, 1, 8).reshape(2, 4)
    wanted = net(x)
    with torch.no_grad():
        assert torch.equal(net(x.clone().requires_grad_()), wanted)
    with pytest.raises(PscxError, match="an exact network has no gradient"):
        net(x.clone().requires_grad_())
    prior = Gaussian()
    prior.network = net
    with pytest.raises(PscxError, match="an exact prior has none"):
        denoise_with_pullback(CountedPrior(prior, Account()), torch.zeros(1, 3, 8, 8), 5)
    assert kind == "convolution" or not any(isinstance(module, ExactConvolution) for module in net.modules())
