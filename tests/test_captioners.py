"""Captioners: BLIP-2 from a folder, against greedy decoding written out; a fixed text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from tiny_latent import no_hub, save_blip2, save_stable_diffusion  # noqa: F401  # no_hub is a fixture

import pscx
from pscx.captioners import Blip2, File, Fixed
from pscx.cli.main import main
from pscx.errors import PscxError

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_blip2(tmp_path_factory.mktemp("captioner") / "blip2", seed=17)


@torch.no_grad()
def test_blip2_decodes_greedily(folder: str, astronaut: Pixels, cat: Pixels) -> None:
    """The most likely token after each prefix (Li et al. 2023), from the network's own logits; twice the same."""
    captioner = Blip2(folder, max_tokens=6)
    network, processor = captioner.network, captioner.processor
    captions = []
    for image in (astronaut, cat):
        pixels = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        image_token, start = network.config.image_token_index, network.config.text_config.bos_token_id
        tokens = [image_token] * 3 + [start]
        for _ in range(6):
            ids = torch.tensor([tokens])
            logits = network(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
            tokens.append(int(logits.argmax()))
            if tokens[-1] == network.config.text_config.eos_token_id:
                break
        wanted = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        captions.append(captioner.caption(image))
        assert captions[-1] == " ".join(wanted.split()) == captioner.caption(image)
        assert captions[-1]
    assert captions[0] != captions[1]
    assert captions[0].startswith(Blip2(folder, max_tokens=2).caption(astronaut))


def test_blip2_in_half_precision(folder: str, astronaut: Pixels) -> None:
    captioner = Blip2(folder, dtype="bf16", max_tokens=3)
    assert captioner.network.dtype == torch.bfloat16
    assert isinstance(captioner.caption(astronaut), str)


def test_blip2_captions_every_image_of_a_test(folder: str, image_folder: Path, tmp_path: Path) -> None:
    """``caption: {name: blip2, ...}`` in a config; what is in each stream is that image's caption, or nothing."""
    config = tmp_path / "codec.yaml"
    config.write_text(
        "recipe: paper-pixel\nmodel:\n  codec:\n    samples: 2\n    iterations: 1\n    sampler: {steps: 1}\n"
        f"    prior: {{name: stable_diffusion, path: {save_stable_diffusion(tmp_path / 'prior')}}}\n"
        f"  caption: {{name: blip2, path: {folder}, max_tokens: 4}}\n"
    )
    run = ["test", "--config", str(config), "--data.root", str(image_folder), "--model.simulate", "false"]
    assert main([*run, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0
    captioner, captions = Blip2(folder, max_tokens=4), set()
    for name, source in (("a", "a.png"), ("b", "b.webp"), ("sub__a", "sub/a.png")):
        stream = (tmp_path / "run" / "streams" / f"{name}.pscx").read_bytes()
        caption = pscx.stream_info(stream)["caption"]
        assert caption == (captioner.caption(pscx.read_image(image_folder / source)) or None)
        assert "blip2" not in str(pscx.stream_info(stream)["spec"])
        captions.add(caption)
    assert len(captions) > 1


@pytest.mark.usefixtures("no_hub")
def test_what_cannot_be_loaded_is_one_sentence(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, reason in (("nobody/nothing", "the hub returned none"), (tmp_path / "empty", "config.json is missing")):
        with pytest.raises(FileNotFoundError) as caught:
            Blip2(str(path))
        assert str(caught.value).startswith(f"no BLIP-2 at '{path}': expected a local folder with its config")
        assert "set as caption.path" in str(caught.value)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_options_out_of_range(folder: str) -> None:
    with pytest.raises(ValueError, match=r"caption.dtype must be one of fp32, fp16, bf16, got 'int8'"):
        Blip2(folder, dtype="int8")  # type: ignore[arg-type]  # wrong on purpose
    for count in (0, 76):
        with pytest.raises(ValueError, match=rf"caption.max_tokens must lie in 1..75, got {count}"):
            Blip2(folder, max_tokens=count)
    with pytest.raises(ValueError, match=r"caption.text must not be empty, got ' '"):
        Fixed(" ")


def test_a_fixed_text_is_the_caption_of_every_image(astronaut: Pixels, cat: Pixels) -> None:
    assert {Fixed("a cat").caption(image) for image in (astronaut, cat)} == {"a cat"}


def latent_config(folder: Path, caption: str) -> str:
    """A codec of a tiny Stable Diffusion, with a captioner; the name of its file."""
    config = folder / "codec.yaml"
    config.write_text(
        "recipe: paper-pixel\nmodel:\n  codec:\n    samples: 2\n    iterations: 1\n    sampler: {steps: 1}\n"
        "    restoration_sampler: {name: ddrm, steps: 1}\n"
        f"    prior: {{name: stable_diffusion, path: {save_stable_diffusion(folder / 'prior')}}}\n"
        f"  caption: {caption}\n"
    )
    return str(config)


def test_captions_of_files_beside_the_images(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``test`` and ``compress`` read ``NAME.txt``; an image without one is left out with a sentence, or has none."""
    (image_folder / "a.txt").write_text("a \n cat\n")
    (image_folder / "sub" / "a.txt").write_text("\ufeffdog", encoding="utf-8")
    config = latent_config(tmp_path, "file")
    run = ["test", "--config", config, "--data.root", str(image_folder)]
    assert main([*run, "--trainer.default_root_dir", str(tmp_path / "run")]) != 0
    beside = image_folder / "b.txt"
    assert f"there is no caption of '{image_folder / 'b.webp'}' in '{beside}': write one" in capsys.readouterr().err
    assert main([*run, "--model.caption.required", "false", "--trainer.default_root_dir", str(tmp_path / "all")]) == 0
    streams = {file.stem: file.read_bytes() for file in (tmp_path / "all" / "streams").glob("*.pscx")}
    assert {name: pscx.stream_info(data)["caption"] for name, data in streams.items()} == {
        **{"a": "a cat", "b": None, "sub__a": "dog"}
    }
    image, stream = str(image_folder / "a.png"), image_folder / "a.pscx"
    assert main(["compress", image, "--config", config]) == 0
    assert stream.read_bytes() == streams["a"]
    capsys.readouterr()
    assert main(["compress", str(image_folder / "b.webp"), "--config", config]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stream_is_made_anew_for_another_caption(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "a.txt").write_text("cat")
    compress = ["compress", str(image_folder), "-o", str(tmp_path / "out"), "--config"]
    compress += [latent_config(tmp_path, "{name: file, required: false}")]
    assert main(compress) == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*.pscx")}
    assert main(compress) == 0
    (image_folder / "a.txt").write_text("dog")
    assert main([*compress, "--force"]) == 0
    after = (tmp_path / "out" / "a.pscx").read_bytes()
    assert before["a.pscx"] != after
    assert pscx.stream_info(after)["caption"] == "dog"


def test_captions_of_a_table_and_a_folder(tmp_path: Path, astronaut: Pixels) -> None:
    """By file name, by name without suffix, by folders, by a dataset's name; the longest name wins."""
    table = tmp_path / "captions.csv"
    table.write_text('id,name,caption\n1,a.png,"a cat, asleep"\n2,sub/a.png,a dog\n3,kodim01,a wall\n4,x,\n')
    captioner = File(str(table))
    wanted = {
        "photos/a.png": "a cat, asleep",
        "photos/sub/a.png": "a dog",
        "kodim01": "a wall",
        "k/kodim01.png": "a wall",
    }
    assert {source: captioner.caption(astronaut, source) for source in wanted} == wanted
    for source in ("b.png", "x.png"):
        with pytest.raises(PscxError, match=rf"there is no caption of '{source}' in '{table}': write one, or set"):
            captioner.caption(astronaut, source)
    assert File(str(table), required=False).caption(astronaut, "b.png") == ""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a hat")
    assert File(str(tmp_path / "texts")).caption(astronaut, "photos/a.png") == "a hat"


def test_caption_files_that_cannot_be_read(tmp_path: Path, astronaut: Pixels) -> None:
    table = tmp_path / "captions.csv"
    with pytest.raises(ValueError, match=r"caption.path must be a folder or a .csv file that exists, or null, got"):
        File(str(table))
    table.write_text("name,text\na,b\n")
    with pytest.raises(ValueError, match="must have the columns name and caption in its first line, and lacks caption"):
        File(str(table))
    table.write_text("name,caption\na,b\nc,d\na,e\n")
    with pytest.raises(ValueError, match="has the name 'a' twice, again in line 4"):
        File(str(table))
    table.write_bytes(b"name,caption\na,\xff\n")
    with pytest.raises(PscxError, match="is not UTF-8: invalid start byte at byte 15"):
        File(str(table))
    with pytest.raises(PscxError, match="the image has no file name, so caption 'file' knows no caption of it"):
        File().caption(astronaut)


def test_the_ablation_of_captions(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``configs/ablations/captions.yaml``: all cells are checked, and the ends of both curves run."""
    (image_folder / "a.txt").write_text("cat")
    where = ["--data.root", str(image_folder), "--trainer.default_root_dir", str(tmp_path / "run")]
    small = ["--model.codec.prior", f"{{name: stable_diffusion, path: {save_stable_diffusion(tmp_path / 'prior')}}}"]
    small += ["--model.codec.iterations", "1", "--model.codec.samples", "2", "--model.codec.sampler.steps", "1"]
    small += ["--model.codec.restoration_sampler", "{name: ddrm, steps: 1}", "--data.crop", "16", "--data.subset", "1"]
    shipped = "configs/ablations/captions.yaml"
    assert main(["ablate", "--config", shipped, *where, *small, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("caption=file") == 3
    grid = yaml.safe_load(Path(shipped).read_text())
    rate = grid["rate"]
    grid |= {"exclude": [{rate: grid["axes"][rate][1:-1]}], "model": {"metrics": ["psnr", "ssim"]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert main(["ablate", "--config", str(tmp_path / "grid.yaml"), *where, *small]) == 0
    streams = [file.read_bytes() for file in (tmp_path / "run").rglob("streams/a.pscx")]
    assert sorted(str(pscx.stream_info(data)["caption"]) for data in streams) == ["None", "None", "cat", "cat"]
