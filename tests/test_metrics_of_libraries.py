"""``cvvdp`` and ``clip_iqa``: what they ask of the libraries behind them, and what is said where these do not load."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pscx.errors import PscxError
from pscx.metrics import CLIPIQA, CVVDP
from pscx.metrics.clip_iqa import prepared

Pixels = NDArray[np.uint8]
WORDS = ("good", "bad", "photo", ".")


class Predictor:
    """In place of the package's class: it takes 10 less the mean difference, of the test from the reference."""

    def __init__(self, display_name: str, quiet: bool, device: torch.device) -> None:
        if display_name == "none":
            raise RuntimeError("unknown display")

    def predict(self, test: Pixels, reference: Pixels, dim_order: str) -> tuple[torch.Tensor, None]:
        assert dim_order == "HWC"
        difference = test.astype(float) - reference.astype(float)
        return torch.tensor(10 - difference.mean()), None


def test_cvvdp_compares_the_reconstruction_with_the_original(cat: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycvvdp", SimpleNamespace(cvvdp=Predictor))
    other = np.minimum(cat, 250) + np.uint8(5)
    brighter = float((other.astype(float) - cat).mean())
    assert CVVDP()(cat, cat) == 10
    assert CVVDP()(cat, other) == pytest.approx(10 - brighter)
    assert CVVDP().value(cat[:15], cat[:15]) is None
    with pytest.raises(PscxError, match="cvvdp cannot be made for the display 'none': unknown display"):
        CVVDP("none").prepare()
    with pytest.raises(ValueError, match="display must name one"):
        CVVDP("")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "the metric cvvdp needs the library pycvvdp: pip install cvvdp"),
        ("import torchvision", "torchvision is installed but does not load, .*nms does not exist"),
        ("import no_such_thing", "the library pycvvdp does not load: No module named 'no_such_thing'"),
    ],
)
def test_a_library_that_does_not_load_is_a_sentence(
    code: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    if code is not None:
        (tmp_path / "pycvvdp.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycvvdp", raising=False)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    if code is None and "pycvvdp" in sys.modules:
        pytest.skip("pycvvdp is installed here")
    with pytest.raises(PscxError, match=says):
        CVVDP().prepare()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP of random weights whose logits have the metric's scale, and a vocabulary of a few words."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    pieces = [chr(code) for code in range(33, 127)]
    words = [*pieces, *(f"{piece}</w>" for piece in pieces)]
    words += [f"{word}</w>" for word in WORDS[:3]]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    facts = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 32}
    text |= {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model = CLIPModel(config)
        model.logit_scale.data.fill_(np.log(100))
    model.save_pretrained(folder)
    return folder


def test_clip_iqa_is_the_softmax_of_the_networks_own_logits(clip: Path, cat: Pixels, astronaut: Pixels) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    metric = CLIPIQA(str(clip))
    found = []
    for picture in (cat, astronaut):
        tokens = tokenizer(["Good photo.", "Bad photo."], return_tensors="pt", padding=True)
        with torch.no_grad():
            logits = model(**tokens, pixel_values=prepared(picture, 32)[None]).logits_per_image
        expected = float(logits.softmax(-1)[0, 0])
        assert metric(np.zeros_like(picture), picture) == pytest.approx(expected, abs=1e-5)
        assert 0 < expected < 1
        found.append(expected)
    assert abs(found[0] - found[1]) > 1e-3
    turned = CLIPIQA(str(clip), good="Bad photo.", bad="Good photo.")
    assert turned(cat, cat) == pytest.approx(1 - found[0], abs=1e-5)
    assert list(metric.digests()) == [f"{clip.name}/model.safetensors"]


def test_pictures_are_prepared_as_clip_was_trained(cat: Pixels, rocket: Pixels) -> None:
    """The shorter side is 32, the middle of the longer one is left; a grey picture has CLIP's mean and deviation."""
    for picture in (cat, rocket):
        assert prepared(picture, 32).shape == (3, 32, 32)
    grey = prepared(np.full((40, 60, 3), 128, np.uint8), 32)[:, 0, 0]
    expected = [(128 / 255 - 0.48145466) / 0.26862954, (128 / 255 - 0.4578275) / 0.26130258]
    assert grey[:2].tolist() == pytest.approx(expected, abs=1e-6)
    half = np.zeros((32, 96, 3), np.uint8)
    half[:, 32:64] = 255
    assert prepared(half, 32).min() > 0  # the black sides are cut off


def test_what_clip_iqa_lacks_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PscxError, match="clip_iqa needs a CLIP, and 'no/such' is no folder and not in the hub's cache"):
        CLIPIQA("no/such").prepare()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PscxError, match="clip_iqa cannot load a CLIP from"):
        CLIPIQA(str(tmp_path)).prepare()
    with pytest.raises(ValueError, match="must not be empty"):
        CLIPIQA(good="")
