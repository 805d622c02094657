"""Stable Diffusion 2.1 and SDXL at their published widths, with random weights, on the CPU: memory, seconds, bytes.

    python benchmarks/real_sizes.py sd21 sdxl --dtype bf16 --side 256
    python benchmarks/real_sizes.py sd21 --exact

Weights are drawn and saved in the published layout, in a folder that is removed again (SDXL takes 7 GB in bf16), and
loaded as any other. Peaks of memory are those of the process (Linux), less what it held before. With ``--exact``, one
evaluation is made in floating point and exactly: with one thread and with two, in a batch of two, and in new processes
with fewer instructions of the processor. Exit code 1 where the exact bits differ.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pscx
from pscx.codecs.with_prior import PriorCodec
from pscx.config import build
from pscx.exact import make_exact
from pscx.priors import PRIORS, Prior
from pscx.priors.latent import LatentPrior
from pscx.priors.speed import DTYPES
from pscx.runtime.quiet import quiet, without_bars

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from machine_settings import INSTRUCTION_SETS  # found through the line above

CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
LEVEL = 1.0  # noise level of an evaluation that is made in floating point and exactly
WORDS = ("a", "a</w>", "<|startoftext|>", "<|endoftext|>")


def save_sd21(folder: Path, dtype: torch.dtype) -> None:
    """As ``stabilityai/stable-diffusion-2-1-base``."""
    save(unet(SD21_UNET), folder / "unet", dtype)
    save(vae(sample_size=768, scaling_factor=0.18215), folder / "vae", dtype)
    save(text_encoder(CLIP_H, 512), folder / "text_encoder", dtype)
    save_rest(folder, ("tokenizer",), "PNDMScheduler")


def save_sdxl(folder: Path, dtype: torch.dtype) -> None:
    """As ``stabilityai/stable-diffusion-xl-base-1.0``."""
    save(unet(SDXL_UNET), folder / "unet", dtype)
    save(vae(sample_size=1024, scaling_factor=0.13025), folder / "vae", dtype)
    save(text_encoder(CLIP, 768), folder / "text_encoder", dtype)
    save(text_encoder(CLIP_G, 1280, projected=True), folder / "text_encoder_2", dtype)
    save_rest(folder, ("tokenizer", "tokenizer_2"), "EulerDiscreteScheduler")


MODELS: dict[str, tuple[str, Callable[[Path, torch.dtype], None]]] = {
    "sd21": ("stable_diffusion", save_sd21),
    "sdxl": ("sdxl", save_sdxl),
}


def unet(options: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    return lambda: UNet2DConditionModel(**options)


def vae(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    return lambda: AutoencoderKL(**levels, **widths, **options)


def text_encoder(sizes: dict[str, int], projection: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return lambda: kind(CLIPTextConfig(vocab_size=49408, projection_dim=projection, **sizes))


def save(make: Callable[[], Any], folder: Path, dtype: torch.dtype) -> None:
    """Random weights without the time that a network's own draw takes."""
    with torch.device("meta"):
        network = make()
    network = nn.Module.to(network, dtype).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(float(name.endswith("weight")))
    network.save_pretrained(folder)


def save_rest(folder: Path, tokenizers: tuple[str, ...], scheduler: str) -> None:
    for part in tokenizers:
        (folder / part).mkdir()
        (folder / part / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
        (folder / part / "merges.txt").write_text("#version: 0.2\n")
        ends = {"bos_token": WORDS[2], "eos_token": WORDS[3], "pad_token": WORDS[3], "unk_token": WORDS[3]}
        (folder / part / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, **ends}))
    (folder / "scheduler").mkdir()
    config = {"_class_name": scheduler, **BETAS, "prediction_type": "epsilon"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


class Figures(dict[str, float]):
    """Seconds, also of processors, and gigabytes at the peak over those before, of what happened in each context."""

    @contextmanager
    def of(self, name: str, *, peak: bool = True) -> Iterator[None]:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before goes back, or it would hide what is taken now
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        started, worked = time.perf_counter(), time.process_time()
        yield
        self[f"{name}, s"] = time.perf_counter() - started
        self[f"{name}, s of a processor"] = time.process_time() - worked
        if peak:
            self[f"{name}, GB"] = (resident("VmHWM") - before) / 1e9


def resident(key: str) -> float:
    """A figure of the process's memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * float(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:")))


def measured(name: str, dtype: str, side: int, folder: Path) -> Figures:
    """All figures of one model."""
    kind, save_model = MODELS[name]
    figures = Figures()
    with quiet(), without_bars():
        save_model(folder, DTYPES[dtype])
    with figures.of("loading"):
        codec = tiny_budget({"name": kind, "path": str(folder), "dtype": dtype})
    assert isinstance(codec.signal_codec, PriorCodec)
    prior = codec.signal_codec.prior
    assert isinstance(prior, LatentPrior)
    for part, network in (("denoiser", prior.network), ("autoencoder", prior.vae), ("texts", prior.texts)):
        figures[f"{part}, parameters / 1e6"] = sum(p.numel() for p in network.parameters()) / 1e6
    shape = prior.signal_shape(side, side)
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        prior.denoise(x[..., : shape[1] // 2, :], 1.0)  # what is made once
        with figures.of("an evaluation"):
            prior.denoise(x, 1.0)
        with figures.of("decoding an image"):
            prior.to_image(x)
    figures["estimated of both, GB"] = prior.memory(shape, 1) / 1e9
    largest = max(figures["an evaluation, GB"], figures["decoding an image, GB"])
    figures["estimated over measured"] = figures["estimated of both, GB"] / largest
    with figures.of("a fingerprint", peak=False):
        prior.fingerprint()
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    with figures.of("compressing"):
        data = codec.compress(image)
    with figures.of("decompressing"):
        codec.decompress(data)
    figures["header, bytes"] = len(data) - pscx.stream_info(data)["payload_bytes"]
    return figures


def measured_exactly(name: str, side: int, folder: Path) -> Figures:
    """One evaluation of one model in float32 and exactly. Raises ``SystemExit`` where an exact one differs in a bit.

    Between the two, the float denoiser is made exact with weights of 8 bits, for its error alone.
    """
    figures = Figures()
    with quiet(), without_bars():
        MODELS[name][1](folder, DTYPES["bf16"])
    with figures.of("loading, float"):
        prior = loaded(name, folder)
    figures["weights and buffers, float, GB"] = held(prior) / 1e9
    x, other = signals(side)
    plain = noise(prior, x, figures, "float")
    make_exact(prior.network, steps=len(prior.levels), freeing=True)
    rough = noise(prior, x, figures, "8 bits")
    del prior
    with figures.of("loading, exact"):
        prior = loaded(name, folder, exact=True)
    figures["weights and buffers, exact, GB"] = held(prior) / 1e9
    one, two = noise(prior, x, figures, "exact"), noise(prior, x, figures, "exact, 2 threads", 2)
    for word, found in (("8 bits", rough), ("exact", one)):
        error = float((found - plain).square().mean() / plain.square().mean())
        figures[f"error of the noise, {word}, %"] = 100 * sqrt(error)
    alone = torch.cat([one, noise(prior, other, figures, "exact, another signal")])
    both = noise(prior, torch.cat([x, other]), figures, "exact, both signals")
    del prior
    same(name, "2 threads", digest(two), digest(one))
    same(name, "a batch of 2", digest(both), digest(alone))
    for settings, environment in INSTRUCTION_SETS.items():
        same(name, settings, digest_under(environment, name, side, folder), digest(one))
    return figures


def loaded(name: str, folder: Path, *, exact: bool = False) -> LatentPrior:
    """A model that was saved."""
    prior = build(PRIORS.get(MODELS[name][0]), {"path": str(folder), "exact": exact})
    assert isinstance(prior, LatentPrior)
    return prior


def signals(side: int) -> tuple[Tensor, Tensor]:
    """Two of them, ``(1, 4, side / 8, side / 8)`` each; NumPy draws the same ones with all instruction sets."""
    drawn = np.random.default_rng(0).standard_normal((2, 1, 4, side // 8, side // 8))
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])


@torch.no_grad()
def noise(prior: Prior, x: Tensor, figures: Figures, what: str, threads: int = 1) -> Tensor:
    """What the network predicts, the second time; what is made once is made in the first."""
    torch.set_num_threads(threads)
    with figures.of(f"first evaluation, {what}"):
        prior.denoise(x, LEVEL)
    with figures.of(f"an evaluation, {what}"):
        return (x - prior.denoise(x, LEVEL)) / LEVEL


def digest(found: Tensor) -> str:
    """Of all bits of a float64 tensor."""
    return sha256(found.contiguous().numpy().tobytes()).hexdigest()[:16]


def same(name: str, what: str, found: str, wanted: str) -> None:
    """Print two digests. Raises ``SystemExit`` if they are not the same."""
    print(f"  {name}, {what}: {found}, alone with one thread: {wanted}", flush=True)
    if found != wanted:
        raise SystemExit(f"{name}: an exact evaluation differs with {what}")


def digest_under(environment: dict[str, str], name: str, side: int, folder: Path) -> str:
    """The digest of an exact evaluation in a new process with these variables. Raises ``SystemExit`` if it fails."""
    command = [sys.executable, __file__, name, "--side", str(side), "--digest", str(folder)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: a process with {environment} failed: {done.stderr}")
    return done.stdout.split()[-1]


def print_digest(name: str, side: int, folder: Path) -> None:
    """Print the digest of an exact evaluation of a model that was saved."""
    x, _ = signals(side)
    with torch.no_grad():
        print(digest((x - loaded(name, folder, exact=True).denoise(x, LEVEL)) / LEVEL))


def held(network: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def tiny_budget(prior: dict[str, Any]) -> pscx.Codec:
    """Two samples of one step, and one restoration."""
    one = {"name": "ddrm", "steps": 1}
    short: dict[str, Any] = {"sampler": one, "restoration_sampler": one, "samples": 2, "iterations": 1, "batch": 1}
    return pscx.load_codec(
        "paper-pixel", prior=prior, rows={"name": "local", "block": 4, "per_iteration": 2.0}, **short
    )


def shown(value: float) -> str:
    """Two digits, as far as such measurements repeat; whole numbers from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--exact", action="store_true", help="one evaluation in float32 and exactly, and no stream")
    parser.add_argument("--digest", type=Path, metavar="FOLDER", help="of an exact evaluation of a saved model, alone")
    options = parser.parse_args()
    if options.digest:
        print_digest(options.models[0], options.side, options.digest)
        return
    dtype = "fp32" if options.exact else options.dtype
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {dtype}, {options.side}x{options.side}")
    for name in options.models:
        with TemporaryDirectory() as folder:
            place, side = Path(folder), options.side
            figures = measured_exactly(name, side, place) if options.exact else measured(name, dtype, side, place)
        print(f"\n{name}")
        for what, value in figures.items():
            print(f"  {what:56} {shown(value):>6}", flush=True)


if __name__ == "__main__":
    main()
