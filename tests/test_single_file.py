"""Single-file checkpoints of Stable Diffusion and SDXL: the same prior as the folder they were made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from safetensors.torch import load_file, save_file
from single_files import save_single_file
from tiny_latent import no_hub, save_stable_diffusion  # noqa: F401  # no_hub is a fixture
from tiny_pipelines import save_pipeline

import pscx
from pscx.cli.main import main
from pscx.priors import PRIORS, Prior

KINDS = ("stable_diffusion", "sdxl")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each with a single file beside its folders, as it is published."""
    root = tmp_path_factory.mktemp("single")
    save_stable_diffusion(root / "stable_diffusion")
    save_pipeline("sdxl", root / "sdxl")
    for kind in KINDS:
        save_single_file(root / kind, root / kind / "all.safetensors")
    return {kind: root / kind for kind in KINDS}


def loaded(kind: str, path: str | Path) -> Prior:
    return PRIORS.get(kind)(path=str(path))  # type: ignore[call-arg]


def without_weights(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_is_the_folder(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Beside the configurations, or beside a folder of its own name that has them; the same fingerprint."""
    wanted = loaded(kind, folders[kind])
    assert loaded(kind, folders[kind] / "all.safetensors").fingerprint() == wanted.fingerprint()
    file = Path(shutil.copy(folders[kind] / "all.safetensors", tmp_path / "mine.safetensors"))
    without_weights(folders[kind], tmp_path / "mine")
    assert loaded(kind, file).fingerprint() == wanted.fingerprint()
    x = torch.randn(1, *wanted.signal_shape(16, 16), generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(loaded(kind, file).denoise(x, 1.0), wanted.denoise(x, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_command_line(kind: str, folders: dict[str, Path], tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    """Compressed with the file, decompressed with the folder."""
    pscx.write_image(tmp_path / "a.png", astronaut[:16, :24])
    prior = f"{{name: {kind}, path: {folders[kind] / 'all.safetensors'}}}"
    short = ["--model.codec.iterations", "1", "--model.codec.samples", "2", "--model.codec.sampler.steps", "1"]
    short += ["--model.codec.restoration_sampler", "{name: ddrm, steps: 1}"]
    args = ["compress", str(tmp_path / "a.png"), "--recipe", "paper-pixel", "--model.codec.prior", prior, *short]
    assert main([*args, "--caption", "a cat"]) == 0
    assert main(["decompress", str(tmp_path / "a.pscx"), "--prior", str(folders[kind])]) == 0
    assert pscx.read_image(tmp_path / "a.decoded.png").shape == (16, 24, 3)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("kind", KINDS)
def test_no_configuration_is_one_sentence(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """It names the repository whose folders are wanted, and where they may be."""
    file = Path(shutil.copy(folders[kind] / "all.safetensors", tmp_path / "mine.safetensors"))
    sentence = refusal(kind, file)
    repository = {"stable_diffusion": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}[kind]
    assert repository in sentence
    assert f"must be beside it or in '{tmp_path / 'mine'}'" in sentence


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("model.diffusion_model.out.2.weight", "the file has no weights for conv_out.weight of its unet"),
        ("first_stage_model.decoder.conv_in.bias", "the file has no weights for decoder.conv_in.bias of its vae"),
        (".text_model.final_layer_norm.bias", "final_layer_norm.bias of its text_encoder"),
    ],
)
def test_a_weight_that_is_not_there(kind: str, part: str, words: str, folders: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(folders[kind] / "all.safetensors")
    del weights[next(key for key in weights if key.endswith(part))]
    save_file(weights, tmp_path / "mine.safetensors")
    without_weights(folders[kind], tmp_path / "mine")
    assert words in refusal(kind, tmp_path / "mine.safetensors")


def test_files_that_are_no_such_checkpoint(folders: dict[str, Path], tmp_path: Path) -> None:
    """Of another family, a pickle, no safetensors, a shape that does not fit, and a kind without single files."""
    sdxl, plain = (folders[kind] / "all.safetensors" for kind in ("sdxl", "stable_diffusion"))
    assert "of the kind 'xl_base', which the prior 'sdxl' loads: set prior.name to sdxl" in refusal(KINDS[0], sdxl)
    assert "which the prior 'stable_diffusion' loads" in refusal("sdxl", plain)
    torch.save(load_file(plain), tmp_path / "mine.ckpt")
    assert "'mine.ckpt' is no .safetensors: a pickle runs code when it is read" in refusal(
        KINDS[0], tmp_path / "mine.ckpt"
    )
    (tmp_path / "mine.safetensors").write_bytes(b"no weights")
    assert "'mine.safetensors' holds no safetensors" in refusal(KINDS[0], tmp_path / "mine.safetensors")
    weights = load_file(plain)
    weights["model.diffusion_model.out.2.bias"] = torch.zeros(9)
    save_file(weights, tmp_path / "mine.safetensors")
    without_weights(folders[KINDS[0]], tmp_path / "mine")
    assert "the file's weights do not fit" in refusal(KINDS[0], tmp_path / "mine.safetensors")
    assert "it is a file: of this kind of model a folder in diffusers' layout is read" in refusal("flux", plain)
    inpainting = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)}
    save_file(inpainting, tmp_path / "mine.safetensors")
    assert "of the kind 'inpainting', which no prior loads" in refusal(KINDS[0], tmp_path / "mine.safetensors")


def refusal(kind: str, path: Path) -> str:
    with pytest.raises(FileNotFoundError) as caught:
        loaded(kind, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)
