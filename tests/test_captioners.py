"""Captioners: BLIP-2 from a folder, against greedy decoding written out; a fixed text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_latent import no_hub, save_blip2, save_stable_diffusion  # noqa: F401  # no_hub is a fixture

import pscx
from pscx.captioners import Blip2, Fixed
from pscx.cli.main import main

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
