"""Folders whose weights are of a variant alone: one sentence that names it, and nothing before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import save_prior
from tiny_latent import save_blip2, save_stable_diffusion

from pscx.cli.main import main
from pscx.images import write_image
from pscx.priors import DDPM, StableDiffusion
from pscx.runtime.hub import check_variant


def renamed(folder: Path, variant: str = "fp16") -> list[Path]:
    """All weights of a folder, as files of a variant."""
    files = [file for file in folder.rglob("*") if file.suffix == ".safetensors"]
    return [file.rename(file.with_name(f"{file.stem}.{variant}{file.suffix}")) for file in files]


@pytest.mark.parametrize("kind", ["stable_diffusion", "ddpm", "blip2"])
def test_the_variant_is_named(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line, where diffusers would have logged an error of its own before."""
    image = tmp_path / "a.png"
    write_image(image, np.zeros((16, 16, 3), np.uint8))
    options = {
        "stable_diffusion": lambda: ["--model.codec.prior", f"{{name: {kind}, path: {tmp_path / 'x'}}}"],
        "ddpm": lambda: ["--model.codec.prior.path", str(tmp_path / "x")],
        "blip2": lambda: [
            *("--model.codec.prior", f"{{name: stable_diffusion, path: {save_stable_diffusion(tmp_path / 'prior')}}}"),
            *("--model.caption", f"{{name: blip2, path: {tmp_path / 'x'}}}"),
        ],
    }[kind]()
    saved = {"stable_diffusion": save_stable_diffusion, "ddpm": save_prior, "blip2": save_blip2}[kind]
    saved(tmp_path / "x", 1)
    file = renamed(tmp_path / "x")[0]
    recipe = "fast" if kind == "ddpm" else "paper-pixel"
    capsys.readouterr()
    assert main(["compress", str(image), "--recipe", recipe, *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pscx: no ")
    assert message.count("\n") == 1
    assert "has the variant 'fp16', which is not read: rename it to" in message
    assert f"{file.name.replace('.fp16', '')})" in message


def test_plain_weights_beside_a_variant_are_read(tmp_path: Path) -> None:
    folder = save_stable_diffusion(tmp_path / "a")
    wanted = StableDiffusion(folder).fingerprint()
    for file in (tmp_path / "a").rglob("*.safetensors"):
        file.with_name(f"{file.stem}.fp16.safetensors").write_bytes(b"no weights")
    assert StableDiffusion(folder).fingerprint() == wanted


@pytest.mark.parametrize(
    ("names", "variant", "plain"),
    [
        (["model.fp16.safetensors"], "fp16", "model.safetensors"),
        (["model.bf16-00001-of-00002.safetensors"], "bf16", "model-00001-of-00002.safetensors"),
        (["diffusion_pytorch_model.non_ema.bin"], "non_ema", "diffusion_pytorch_model.bin"),
    ],
)
def test_names_of_variants(names: list[str], variant: str, plain: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(OSError, match=rf"has the variant '{variant}', .* rename it to {plain}$"):
        check_variant(tmp_path)
    (tmp_path / plain).touch()
    check_variant(tmp_path)


def test_missing_weights_are_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save_prior(tmp_path / "a", 1)
    (tmp_path / "a" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    capfd.readouterr()
    with pytest.raises(FileNotFoundError, match=r"no diffusers pixel prior at"):
        DDPM(folder)
    assert capfd.readouterr() == ("", "")
