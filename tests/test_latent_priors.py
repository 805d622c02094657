"""SDXL, SD 3, Flux and Sana: the denoiser against each pipeline's own call, and streams across processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from safetensors.torch import load_file, save_file
from tiny_latent import BETAS, TOKENS, save_stable_diffusion
from tiny_pipelines import SAVED, save_pipeline
from torch import Tensor

import pscx
from pscx.cli.main import main
from pscx.errors import PscxError
from pscx.priors import PRIORS
from pscx.priors.flow_schedules import flow_of
from pscx.priors.latent import LatentPrior
from pscx.runtime.quiet import quiet, without_bars

Pixels = NDArray[np.uint8]
KINDS = tuple(SAVED)
FLOWS = ("sd3", "flux", "sana")
GUIDANCE = 3.0


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A saved pipeline of each kind."""
    root = tmp_path_factory.mktemp("latent")
    return {kind: save_pipeline(kind, root / kind, seed) for seed, kind in enumerate(KINDS)}


@pytest.fixture(scope="session")
def priors(folders: dict[str, str]) -> dict[str, LatentPrior]:
    return {kind: loaded(kind, folders[kind], guidance=GUIDANCE) for kind in KINDS}


@pytest.fixture
def copied(folders: dict[str, str], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a kind's folder, to break."""
    return lambda kind: Path(shutil.copytree(folders[kind], tmp_path / "copy"))


def loaded(kind: str, path: str, **options: Any) -> LatentPrior:
    prior = PRIORS.get(kind)(path=path, **options)  # type: ignore[call-arg]
    assert isinstance(prior, LatentPrior)
    return prior


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pipeline_of(kind: str, folder: str, **parts: Any) -> Any:
    """The pipeline of diffusers, each part read from the folder by the class that its publisher names."""
    with quiet(), without_bars():
        import diffusers
        import transformers

        of_clip = transformers.CLIPTextModel
        projected = transformers.CLIPTextModelWithProjection
        text = {
            "sdxl": [of_clip, projected],
            "sd3": [projected, projected, transformers.T5EncoderModel],
            "flux": [of_clip, transformers.T5EncoderModel],
            "sana": [transformers.Gemma2Model],
        }[kind]
        tokenizers = {
            "sdxl": [transformers.CLIPTokenizer] * 2,
            "sd3": [*[transformers.CLIPTokenizer] * 2, transformers.T5TokenizerFast],
            "flux": [transformers.CLIPTokenizer, transformers.T5TokenizerFast],
            "sana": [transformers.GemmaTokenizerFast],
        }[kind]
        for i, (encoder, tokenizer) in enumerate(zip(text, tokenizers, strict=True)):
            number = f"_{i + 1}" if i else ""
            parts[f"text_encoder{number}"] = encoder.from_pretrained(f"{folder}/text_encoder{number}")
            parts[f"tokenizer{number}"] = tokenizer.from_pretrained(f"{folder}/tokenizer{number}")
        name, denoiser, vae = {
            "sdxl": ("StableDiffusionXLPipeline", "UNet2DConditionModel", "AutoencoderKL"),
            "sd3": ("StableDiffusion3Pipeline", "SD3Transformer2DModel", "AutoencoderKL"),
            "flux": ("FluxPipeline", "FluxTransformer2DModel", "AutoencoderKL"),
            "sana": ("SanaPipeline", "SanaTransformer2DModel", "AutoencoderDC"),
        }[kind]
        place = "unet" if kind == "sdxl" else "transformer"
        for part, cls in ((place, denoiser), ("vae", vae)):
            parts[part] = getattr(diffusers, cls).from_pretrained(f"{folder}/{part}", low_cpu_mem_usage=False)
        made = getattr(diffusers, name)(**parts)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("caption", ["", "a cat"])
def test_sdxl_is_the_pipeline(caption: str, folders: dict[str, str], priors: dict[str, LatentPrior]) -> None:
    """Four steps of DDIM (Song et al. 2021, Eq. 12, eta 0) under two encoders, sizes and guidance."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**BETAS, prediction_type="epsilon", clip_sample=False, steps_offset=1)
    pipeline = pipeline_of("sdxl", folders["sdxl"], scheduler=scheduler)
    told = (
        {"prompt": caption, "guidance_scale": GUIDANCE}
        if caption
        else {
            "prompt_embeds": torch.zeros(1, TOKENS, 20),
            "pooled_prompt_embeds": torch.zeros(1, 6),
            "guidance_scale": 1.0,
        }
    )
    x = random(2, 4, 4, 6)
    wanted = pipeline(**told, latents=x[:1].float(), height=16, width=24, num_inference_steps=4, output_type="latent")
    prior = priors["sdxl"].conditioned(caption) if caption else priors["sdxl"]
    levels = prior.levels[[751, 501, 251, 1]].tolist()
    x = x * (1 + levels[0] ** 2) ** 0.5
    for sigma, after in pairwise([*levels, 0.0]):
        x0 = prior.denoise(x, sigma)
        x = x0 + after / sigma * (x - x0)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x[:1].float(), wanted.images, rtol=0, atol=3e-5)
    assert prior.evaluations == (2 if caption else 1)


@pytest.mark.parametrize("caption", ["", "a cat"])
@pytest.mark.parametrize("kind", FLOWS)
def test_flows_are_the_pipelines(
    kind: str, caption: str, folders: dict[str, str], priors: dict[str, LatentPrior]
) -> None:
    """Steps of Euler along the flow (for Sana: of first order), from the same state to the same latents."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    class Unrounded(DPMSolverMultistepScheduler):  # type: ignore[misc]  # of no type to mypy
        """Tells the network times as they are, where diffusers cuts them to whole numbers."""

        def set_timesteps(self, *args: Any, **options: Any) -> None:
            super().set_timesteps(*args, **options)
            self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps

    config = json.loads(Path(folders[kind], "scheduler", "scheduler_config.json").read_text())
    solver = Unrounded if kind == "sana" else FlowMatchEulerDiscreteScheduler
    first_order = {"solver_order": 1} if kind == "sana" else {}
    pipeline = pipeline_of(kind, folders[kind], scheduler=solver.from_config({**config, **first_order}))
    prior = priors[kind].conditioned(caption) if caption else priors[kind]
    height, width = 32, 64
    x = random(2, *prior.signal_shape(height, width), seed=1)
    steps = {"num_inference_steps": 4} if kind == "sana" else {"sigmas": [0.9, 0.6, 0.3]}
    plain = {"use_resolution_binning": False, "complex_human_instruction": None} if kind == "sana" else {}
    latents = x[:1].float()
    if kind == "flux":
        latents = pipeline._pack_latents(latents, 1, 16, 8, 16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # a scheduler's of diffusers
        wanted = pipeline(
            caption,
            latents=latents,
            height=height,
            width=width,
            guidance_scale=GUIDANCE if caption else 1.0,
            output_type="latent",
            **steps,
            **plain,
        ).images
    if kind == "flux":
        wanted = pipeline._unpack_latents(wanted, height, width, 4)
    times = pipeline.scheduler.sigmas.double().tolist()
    for s, after in pairwise([*times[:-1], 0.0]):
        x0 = prior.denoise(x / (1 - s), s / (1 - s))
        x = x + (after - s) * (x - x0) / s
    torch.testing.assert_close(x[:1].float(), wanted, rtol=0, atol=5e-5)
    assert (x[:1].float() - wanted).abs().max() < 1e-3 * x.std()
    assert prior.evaluations == (2 if caption and kind != "flux" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_signals_are_those_of_the_pipeline(kind: str, folders: dict[str, str], priors: dict[str, LatentPrior]) -> None:
    """``scaling_factor (z - shift_factor)`` of the autoencoder's mean; both ways."""
    prior, image = priors[kind], random(2, 3, 32, 48)
    config = json.loads(Path(folders[kind], "vae", "config.json").read_text())
    found = prior.vae.encode(image.float())
    z = found.latent if kind == "sana" else found.latent_dist.mean
    signal = prior.to_signal(image)
    shift = config.get("shift_factor") or 0.0
    torch.testing.assert_close(signal, (z.double() - shift) * config["scaling_factor"], rtol=1e-6, atol=1e-6)
    assert (shift != 0) == (kind in ("sd3", "flux"))
    assert prior.signal_shape(32, 48) == tuple(signal.shape[1:])
    back = prior.vae.decode((signal / config["scaling_factor"] + shift).float()).sample
    torch.testing.assert_close(prior.to_image(signal), back.double())


@pytest.mark.parametrize(("kind", "shift"), [("sd3", 3.0), ("flux", np.exp(1.15)), ("sana", 3.0)])
def test_levels_follow_the_shifted_schedule(kind: str, shift: float, priors: dict[str, LatentPrior]) -> None:
    """Times of Esser et al. 2024, Eq. 23, at equal distances before the shift."""
    u = np.arange(1, 1000) / 1000
    s = shift * u / (1 + (shift - 1) * u)
    np.testing.assert_allclose(priors[kind].levels.numpy(), s / (1 - s), rtol=1e-9)
    assert priors[kind].continuous


def test_sd3_without_its_third_encoder(tmp_path: Path) -> None:
    """Zeros stand for what T5 says, as in the pipeline; a caption must then fit CLIP."""
    prior = loaded("sd3", save_pipeline("sd3", tmp_path / "x", long=False))
    assert prior.empty["encoder_hidden_states"].shape == (1, TOKENS + 256, 24)
    assert not prior.empty["encoder_hidden_states"][:, TOKENS:].any()
    with pytest.raises(PscxError, match=f"has {TOKENS - 1} tokens and the prior's text encoder takes {TOKENS - 2}"):
        prior.conditioned("a b c d e f g h i j k")


def test_long_captions_are_cut_for_clip_alone(priors: dict[str, LatentPrior]) -> None:
    long = "a " * 20
    assert priors["flux"].conditioned(long).caption is not None
    with pytest.raises(PscxError, match="the prior's text encoder takes 511: shorten it"):
        priors["flux"].conditioned("a " * 520)


@pytest.mark.parametrize("kind", KINDS)
def test_offloaded_encoders_stay_on_the_cpu(kind: str, folders: dict[str, str], priors: dict[str, LatentPrior]) -> None:
    """They are no part of what moves with the prior, and answers and fingerprint are the same."""
    prior, other = priors[kind], loaded(kind, folders[kind], guidance=GUIDANCE, offload=True)
    moved = {id(parameter) for parameter in other.parameters()}
    assert not moved & {id(parameter) for parameter in other.texts.parameters()}
    assert {id(p) for p in prior.parameters()} >= {id(p) for p in prior.texts.parameters()}
    x = random(1, *prior.signal_shape(32, 32))
    found = other.conditioned("a cat").denoise(x, 1.0)
    torch.testing.assert_close(found, prior.conditioned("a cat").denoise(x, 1.0), rtol=0, atol=0)
    assert other.fingerprint() == prior.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind: str, folders: dict[str, str], priors: dict[str, LatentPrior]) -> None:
    """Networks in bfloat16, the solver's state in float64; near enough to single precision."""
    half = loaded(kind, folders[kind], guidance=GUIDANCE, dtype="bf16")
    assert {p.dtype for p in half.network.parameters()} == {p.dtype for p in half.vae.parameters()} == {torch.bfloat16}
    x = random(1, *half.signal_shape(32, 32))
    one, other = (prior.conditioned("a cat").denoise(x, 1.0) for prior in (half, priors[kind]))
    assert one.dtype == torch.float64
    assert 0 < (one - other).abs().max() < 0.2
    assert half.fingerprint() != priors[kind].fingerprint()


def test_the_autoencoder_of_sdxl_stays_in_float32(copied: Callable[[str], Path]) -> None:
    """Unless it is the fixed one, whose configuration says so."""
    folder = copied("sdxl")
    prior = loaded("sdxl", str(folder), dtype="fp16")
    assert prior.vae.dtype == torch.float32
    assert prior.network.dtype == torch.float16
    assert prior.to_image(random(1, 4, 4, 4)).dtype == torch.float64
    change(folder / "vae" / "config.json", force_upcast=False)
    assert loaded("sdxl", str(folder), dtype="fp16").vae.dtype == torch.float16


def test_vae_slices_and_tiles(folders: dict[str, str], priors: dict[str, LatentPrior]) -> None:
    for kind in ("sd3", "sana"):
        prior, small = priors[kind], random(2, *priors[kind].signal_shape(32, 32))
        sliced = loaded(kind, folders[kind], vae_slicing=True)
        calls: list[int] = []
        sliced.vae.decoder.register_forward_hook(lambda module, inputs, output, own=calls: own.append(len(output)))
        torch.testing.assert_close(sliced.to_image(small), prior.to_image(small), rtol=0, atol=1e-4)
        assert calls == [1, 1]
    tiled = loaded("sd3", folders["sd3"], vae_tiling=True)
    large = random(1, 16, 16, 12)
    assert 0 < (tiled.to_image(large) - priors["sd3"].to_image(large)).abs().mean()
    assert tiled.fingerprint() != priors["sd3"].fingerprint()


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


DECODE = """
import sys
import warnings
from pathlib import Path
import numpy as np
import pscx
for stream in sorted(Path(sys.argv[1]).glob("*.pscx")):
    prior = stream.with_suffix(".txt").read_text()
    np.save(stream.with_suffix(".npy"), pscx.Decompressor(prior_path=prior).decompress(stream.read_bytes()))
"""
SHORT: dict[str, Any] = {
    "sampler": {"name": "ddrm", "steps": 2},
    "restoration_sampler": {"name": "ddrm", "steps": 1},
    "rows": {"name": "local", "block": 4, "per_iteration": 3.0},
    "samples": 2,
    "iterations": 2,
}


def test_streams_decode_in_a_new_process(folders: dict[str, str], astronaut: Pixels, tmp_path: Path) -> None:
    """Of each kind, with and without a caption; sides beyond the network's own and odd ones."""
    expected = {}
    for kind in KINDS:
        prior = {"name": kind, "path": folders[kind]}
        codec = pscx.load_codec("paper-pixel", prior=prior, **SHORT)
        for caption in ("", "a cat"):
            name = f"{kind}-{caption[-3:]}"
            done = codec.simulate(astronaut[:18, 3:34], caption=caption)
            (tmp_path / f"{name}.pscx").write_bytes(done.data)
            (tmp_path / f"{name}.txt").write_text(folders[kind])
            expected[name] = done.pixels
            assert done.pixels.shape == (18, 31, 3)
    subprocess.run([sys.executable, "-W", "error", "-c", DECODE, tmp_path], check=True, timeout=300)
    for name, pixels in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), pixels, err_msg=name)
    for kind in KINDS:
        assert not np.array_equal(expected[f"{kind}-"], expected[f"{kind}-cat"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line(
    kind: str, folders: dict[str, str], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``test`` under a caption, ``fit`` of the entropy coding, ``decompress --prior``."""
    config = tmp_path / "codec.yaml"
    prior = f"{{name: {kind}, path: {folders[kind]}}}"
    config.write_text(
        "model:\n  codec:\n    sampler: {name: ddrm, steps: 1}\n    rows: {name: local, block: 4, per_iteration: 2}\n"
        "    quantizer: {name: uniform, step: 0.5}\n    coder: posterior\n    restoration: {name: mean, samples: 1}\n"
        f"    samples: 2\n    iterations: 2\n    prior: {prior}\n"
    )
    common = ["--config", str(config), "--data.root", str(image_folder), "--data.subset", "1"]
    run = [*common, "--trainer.default_root_dir", str(tmp_path / "run"), "--model.simulate", "false"]
    assert main(["test", *run, "--model.caption", "{name: fixed, text: a cat}"]) == 0
    stream = tmp_path / "run" / "streams" / "a.pscx"
    assert pscx.stream_info(stream.read_bytes())["caption"] == "a cat"
    assert main(["decompress", str(stream), "-o", str(tmp_path / "a.png"), "--prior", folders[kind]]) == 0
    assert pscx.read_image(tmp_path / "a.png").shape == (32, 32, 3)
    fit = ["fit", "--model", "calibrate", *common, "--trainer.default_root_dir", str(tmp_path / "fit")]
    assert main(fit) == 0, capsys.readouterr().err
    assert list((tmp_path / "fit").rglob("*.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_part(kind: str, copied: Callable[[str], Path]) -> None:
    folder = copied(kind)
    for missing in ("text_encoder/config.json", "vae/diffusion_pytorch_model.safetensors", "scheduler"):
        path = folder / missing
        aside = path.rename(path.with_name(f"{path.name}.aside"))
        sentence = refusal(kind, folder)
        assert missing.rpartition("/")[2] in sentence
        aside.rename(path)
    assert sentence.startswith("no ")
    assert "set as prior.path (or --prior to decompress)" in sentence


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_is_not_read(kind: str, copied: Callable[[str], Path]) -> None:
    folder = copied(kind)
    weights = next((folder / ("unet" if kind == "sdxl" else "transformer")).glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert "diffusion_pytorch_model.safetensors" in refusal(kind, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_there(kind: str, copied: Callable[[str], Path]) -> None:
    file = copied(kind) / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    del weights[max(weights)]
    save_file(weights, file, {"format": "pt"})
    assert f"{file.parent / 'config.json'} has no weights for" in refusal(kind, file.parent.parent)


def test_the_wrong_scheduler(copied: Callable[[str], Path]) -> None:
    folder = copied("sd3")
    change(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    assert "its scheduler is a DDIMScheduler, which has no times of flow matching" in refusal("sd3", folder)
    with pytest.raises(ValueError, match="which has no times of flow matching"):
        flow_of({"_class_name": "EulerDiscreteScheduler"})
    shutil.rmtree(folder)
    folder = copied("sdxl")
    change(folder / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    assert "which has no variance-preserving steps" in refusal("sdxl", folder)


def test_checkpoints_of_another_family(folders: dict[str, str], tmp_path: Path) -> None:
    """Each names the prior that loads it."""
    places = {**folders, "stable_diffusion": save_stable_diffusion(tmp_path / "sd")}
    for wanted in places:
        for kind, folder in places.items():
            if kind != wanted:
                assert f"which the prior '{kind}' loads: set prior.name to {kind}" in refusal(wanted, folder)
    change(Path(places["stable_diffusion"], "unet", "config.json"), _class_name="Kandinsky3UNet")
    assert "is of a Kandinsky3UNet, which no prior loads" in refusal("sdxl", places["stable_diffusion"])


@pytest.mark.parametrize(
    ("kind", "key", "value", "words"),
    [
        ("sdxl", "projection_class_embeddings_input_dim", 26, "must be 30, of a pooled embedding of 6 and six sizes"),
        ("sd3", "pooled_projection_dim", 8, "transformer.pooled_projection_dim must be the text encoders' 10, got 8"),
        ("sd3", "joint_attention_dim", 16, "transformer.joint_attention_dim must be T5's 24, got 16"),
        ("flux", "pooled_projection_dim", 6, "transformer.pooled_projection_dim must be the text encoder's 8, got 6"),
        ("flux", "in_channels", 16, "transformer.in_channels must be 64, as the autoencoder's latents, got 16"),
        ("sana", "caption_channels", 6, "transformer.caption_channels must be the text encoder's 8, got 6"),
    ],
)
def test_parts_that_do_not_fit(kind: str, key: str, value: int, words: str, copied: Callable[[str], Path]) -> None:
    import diffusers

    folder = copied(kind)
    place = folder / ("unet" if kind == "sdxl" else "transformer")
    config = {**json.loads((place / "config.json").read_text()), key: value}
    with torch.random.fork_rng(devices=[]), quiet():
        getattr(diffusers, config["_class_name"]).from_config(config).save_pretrained(place)
    assert words in refusal(kind, folder)


def test_an_image_beyond_the_places_of_sd3(priors: dict[str, LatentPrior]) -> None:
    assert priors["sd3"].signal_shape(128, 128) == (16, 32, 32)
    with pytest.raises(PscxError, match="images of up to 128 pixels a side, got 16x136"):
        priors["sd3"].signal_shape(136, 16)


def refusal(kind: str, folder: str | Path) -> str:
    with pytest.raises(FileNotFoundError) as caught:
        loaded(kind, str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)
