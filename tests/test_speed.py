"""How floating-point networks are run: the number format is part of a codec, what makes them faster is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import EXACT, save_prior, write_codec
from tiny_latent import save_stable_diffusion
from torch import Tensor, nn

from pscx import Codec, Decompressor, load_codec, stream_info
from pscx.cli.main import main
from pscx.codecs.specs import codec_spec
from pscx.config import ConfigError
from pscx.errors import PscxError, StreamError
from pscx.format.container import pack, unpack
from pscx.images import encode_image
from pscx.networks import NoiseExperts
from pscx.priors import DDPM, Gaussian, Speed, StableDiffusion, speed
from pscx.priors.denoiser import PixelDenoiser

Pixels = NDArray[np.uint8]
SMALL: dict[str, Any] = {"samples": 2, "iterations": 2, "sampler": {"steps": 1}}


@pytest.fixture(scope="module")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("pixel"), 1)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_stable_diffusion(tmp_path_factory.mktemp("latent"))


@pytest.fixture
def photo(astronaut: Pixels) -> Pixels:
    return astronaut[20:36, 30:46]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Compiling without a C++ compiler: graphs are captured and run as they are. Shapes of the captured inputs."""
    captured: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        captured.append(next(one.shape for one in inputs if isinstance(one, Tensor) and one.ndim == 4))
        return graph.forward

    monkeypatch.setattr(speed, "BACKEND", backend)
    torch.compiler.reset()
    return captured


def codec_of(path: str, **prior: Any) -> Codec:
    return load_codec("default", prior={"path": path, "exact": False, **prior}, **SMALL)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "error"), [("fp16", 0.005), ("bf16", 0.04)])
def test_a_pixel_network_in_half_precision(dtype: Any, error: float, pixel: str) -> None:
    """Near the answer of single precision, and not it; the schedule is the same."""
    single, half = DDPM(pixel), DDPM(pixel, dtype=dtype)
    x = random(2, 3, 16, 16)
    expected, found = single.denoise(x, 0.3), half.denoise(x, 0.3)
    assert 0 < (found - expected).abs().max() < error
    assert {weight.dtype for weight in half.parameters()} == {speed.DTYPES[dtype]}
    assert torch.equal(half.levels, single.levels)
    assert half.memory((3, 16, 16), 2) == single.memory((3, 16, 16), 2) // 2


def test_the_number_format_is_part_of_the_codec(pixel: str, photo: Pixels) -> None:
    """In the spec and in the fingerprint; the decoder takes it from there. Earlier streams imply single precision."""
    codec, single = codec_of(pixel, dtype="bf16"), codec_of(pixel)
    assert codec_spec(codec.signal_codec)["prior"] == {"name": "ddpm", "exact": False, "dtype": "bf16"}
    assert codec_spec(single.signal_codec)["prior"] == {"name": "ddpm", "exact": False}
    assert codec.signal_codec.fingerprint() != single.signal_codec.fingerprint()
    done = codec.simulate(photo)
    assert ", bfloat16, " in stream_info(done.data)["arithmetic"]
    assert np.array_equal(Decompressor(prior_path=pixel).decompress(done.data), done.pixels)


def test_an_exact_network_is_run_in_one_way(pixel: str, photo: Pixels) -> None:
    with pytest.raises(ConfigError, match=r"prior.dtype must be fp32: prior.exact is true, got fp16"):
        load_codec("default", prior={"path": pixel, "dtype": "fp16"})
    with pytest.raises(ConfigError, match=r"prior.speed must be null: prior.exact is true"):
        load_codec("default", prior={"path": pixel, "speed": {"channels_last": True}})
    data = load_codec("default", prior={"path": pixel}, **SMALL).compress(photo)
    with pytest.raises(PscxError, match=r"prior.speed must be null: prior.exact is true"):
        Decompressor(prior_path=pixel, speed=Speed(compile=True)).decompress(data)


def test_what_has_nothing_to_be_made_faster(pixel: str) -> None:
    with pytest.raises(ValueError, match=r"prior.speed.attention must be auto: the network has no attention"):
        DDPM(pixel, speed=Speed(attention="math"))
    with pytest.raises(ValueError, match=r"prior.speed.channels_last must be false: the network has no convolutions"):
        Speed(channels_last=True).prepare([nn.Linear(1, 1)])
    with pytest.raises(ValueError, match=r"prior.speed must be null: a Gaussian has no network"):
        Gaussian().hasten(Speed())
    with pytest.raises(ValueError, match=r"speed.attention must be one of auto, flash, .*, got 'x'"):
        Speed(attention="x")  # type: ignore[arg-type]  # that is the point


def test_a_compiled_network_answers_as_it_is(pixel: str, eager: list[torch.Size]) -> None:
    """Graphs are captured whole, once for each shape whatever came before, and run as they are: equal to the bit."""
    plain, compiled = DDPM(pixel), DDPM(pixel, speed=Speed(compile=True))
    with torch._dynamo.config.patch(recompile_limit=1):  # which is 8, and not enough for a folder of images
        for batch in (2, 1, 3, 2, 1, 3):
            x = random(batch, 3, 16, 16)
            assert torch.equal(compiled.denoise(x, 0.5), plain.denoise(x, 0.5))
    assert [found[0] for found in eager] == [2, 1, 3]
    assert compiled.fingerprint() == plain.fingerprint()


def test_each_expert_is_compiled(tmp_path: Path, eager: list[torch.Size]) -> None:
    network = NoiseExperts(in_channels=3, out_channels=3, block_out_channels=(8,), blocks=(1,))
    PixelDenoiser(network, DDPMScheduler(prediction_type="v_prediction")).save(tmp_path)
    prior = DDPM(str(tmp_path), speed=Speed(compile=True))
    low, high = prior.denoisers
    assert low is not high
    for level in (0.05, 1.0):
        torch.compiler.reset()  # the two differ in their weights alone, and would share a graph
        prior.denoise(random(1, 3, 8, 8), level)
    assert len(eager) == 2


@pytest.mark.slow
def test_a_compiled_latent_network(latent: str, eager: list[torch.Size]) -> None:
    plain, compiled = StableDiffusion(latent), StableDiffusion(latent, speed=Speed(compile=True))
    x = random(2, 4, 4, 4)
    assert torch.equal(compiled.denoise(x, 0.5), plain.denoise(x, 0.5))
    assert len(eager) == 1


def test_speed_is_no_part_of_a_codec(pixel: str, photo: Pixels, eager: list[torch.Size]) -> None:
    """The spec, the fingerprint and the payload are those of the codec without it; words for the arithmetic tell."""
    plain, fast = codec_of(pixel), codec_of(pixel, speed={"compile": True, "channels_last": True})
    assert codec_spec(fast.signal_codec) == codec_spec(plain.signal_codec)
    (header, payload), (other, same) = unpack(plain.compress(photo)), unpack(fast.compress(photo))
    assert eager
    assert payload == same
    assert other.arithmetic == f"{header.arithmetic}, compiled, channels last"
    assert (other.spec, other.fingerprint) == (header.spec, header.fingerprint)
    data = pack(other, same)
    torch.compiler.reset()
    decompressor = Decompressor(prior_path=pixel, speed=Speed(compile=True))
    before = len(eager)
    assert np.array_equal(decompressor.decompress(data), fast.decompress(data))
    assert len(eager) > before


def test_a_stream_cannot_ask_for_speed(pixel: str, photo: Pixels) -> None:
    header, payload = unpack(codec_of(pixel).compress(photo))
    spec = header.spec.replace('"exact":false', '"exact":false,"speed":{"compile":true}')
    assert spec != header.spec
    forged = pack(type(header)(**{**vars(header), "spec": spec}), payload)
    with pytest.raises(StreamError, match=r"prior.speed.*cannot come from a stream"):
        Decompressor(prior_path=pixel).decompress(forged)


def test_a_compiler_that_fails_is_one_sentence(pixel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working compiler\nand a long story")

    monkeypatch.setattr(speed, "BACKEND", backend)
    torch.compiler.reset()
    with pytest.raises(PscxError) as caught:
        DDPM(pixel, speed=Speed(compile=True)).denoise(random(1, 3, 16, 16), 0.5)
    says = str(caught.value)
    assert says.startswith("prior.speed.compile must be false here: torch.compile, which needs a C++ compiler, has ")
    assert "no working compiler" in says
    assert "story" not in says


def test_errors_of_the_network_itself_stay(pixel: str, eager: list[torch.Size]) -> None:
    with pytest.raises(RuntimeError) as caught, Speed(compile=True).running():
        raise RuntimeError("out of luck")
    assert not isinstance(caught.value, PscxError)


@pytest.mark.slow
def test_a_machine_without_a_compiler(pixel: str, photo: Pixels, tmp_path: Path) -> None:
    """The real compiler of torch, told of a C++ compiler that is not there."""
    (tmp_path / "photo.png").write_bytes(encode_image(photo, "photo.png"))
    config = write_codec(tmp_path, EXACT.format(path=pixel).replace("exact: true", "speed: {compile: true}"))
    environment = {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    call = [sys.executable, "-m", "pscx", "compress", str(tmp_path / "photo.png"), "--config", config]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})
    assert done.returncode == 2
    assert "which needs a C++ compiler, has failed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_kernels_of_attention(latent: str) -> None:
    """Each is the one that torch uses alone: nearly the same answer, and a sentence where a device has none."""
    x = random(1, 4, 4, 4)
    expected = StableDiffusion(latent).denoise(x, 0.5)
    prior = StableDiffusion(latent, speed=Speed(attention="math", channels_last=True))
    assert prior.denoise(x, 0.5) == pytest.approx(expected, abs=1e-4)
    assert prior.network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(PscxError, match=r"prior.speed.attention cannot be cudnn here: torch has no such kernel"):
        StableDiffusion(latent, speed=Speed(attention="cudnn")).denoise(x, 0.5)


def test_decompress_on_the_command_line(
    pixel: str, photo: Pixels, tmp_path: Path, eager: list[torch.Size], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = tmp_path / "photo.pscx"
    stream.write_bytes(codec_of(pixel).compress(photo))
    call = ["decompress", str(stream), "--prior", pixel, "--device", "cpu", "--speed"]
    assert main([*call, "{compile: true}"]) == 0
    assert eager
    assert main([*call, "{compiled: true}", "--force"]) == 2
    assert "speed.compiled: speed 'speed' has no option 'compiled' (did you mean 'compile'?)" in capsys.readouterr().err
