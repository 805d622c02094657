"""The codec of images: round trips, padding, headers, and what a hostile stream may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from tiny import CODEC, psc_of, save_prior, write_codec

import pscx
from pscx import Codec, ConfigError, Decompressor, ImageError, PscxError, StreamError, load_codec
from pscx.codecs.specs import codec_spec, recipe_number, recipe_spec
from pscx.format.container import Header, pack, unpack
from pscx.priors import Gaussian
from pscx.quantizers import Uniform
from pscx.registry import parameters_of
from pscx.rows import Local
from pscx.samplers import DDRM

Pixels = NDArray[np.uint8]
DDRM_2 = {
    "name": "ddrm",
    "steps": 2,
    "eta": 1.0,
    "start": None,
    "warm_start": None,
    "stop": 0.0,
    "spacing": "linear",
    "noise_aware": True,
}
"""What a stream says of ``{name: ddrm, steps: 2}``."""


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return load_codec(write_codec(tmp_path))


@pytest.fixture
def photo(astronaut: Pixels) -> Pixels:
    return astronaut[20:44, 30:60]


def forged(data: bytes, **changes: Any) -> bytes:
    """The same stream with other header fields and a checksum that fits."""
    header, payload = unpack(data)
    return pack(replace(header, **changes), payload)


def with_spec(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    spec = json.loads(unpack(data)[0].spec)
    change(spec)
    return forged(data, spec=json.dumps(spec))


def test_the_decoder_shows_what_the_encoder_simulated(codec: Codec, photo: Pixels) -> None:
    done = codec.simulate(photo, samples=2)
    assert done.data == codec.compress(photo)
    assert np.array_equal(codec.decompress(done.data), done.pixels)
    assert np.array_equal(Decompressor().decompress(done.data, index=1), done.images[1])
    first, second = done.images
    assert not np.array_equal(first, second)
    assert done.pixels.shape == photo.shape


def test_more_and_finer_rows_come_closer_to_the_picture(photo: Pixels, tmp_path: Path) -> None:
    name = write_codec(tmp_path)
    rough = load_codec(name).simulate(photo)
    fine = load_codec(name, rows={"per_iteration": 60}, step=0.0625).simulate(photo)
    error_rough, error_fine = (np.abs(done.pixels.astype(int) - photo).mean() for done in (rough, fine))
    assert error_fine < min(5, error_rough / 2)
    assert len(fine.data) > len(rough.data)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (24, 16)])
def test_any_size_comes_back(codec: Codec, astronaut: Pixels, height: int, width: int) -> None:
    photo = astronaut[:height, :width]
    done = codec.simulate(photo)
    assert done.pixels.shape == (height, width, 3)
    assert np.array_equal(codec.decompress(done.data), done.pixels)


def test_padding_repeats_the_edge(codec: Codec) -> None:
    from pscx.codecs.pixels import signal_of

    photo = np.arange(17 * 19 * 3, dtype=np.int64).reshape(17, 19, 3).astype(np.uint8)
    signal = signal_of(codec.signal_codec, photo)
    assert signal.shape == (3, 24, 24)
    assert signal.dtype == torch.float32
    assert torch.equal(signal[:, 17:, :19], signal[:, 16:17, :19].expand(3, 7, 19))
    assert torch.equal(signal[:, :, 19:], signal[:, :, 18:19].expand(3, 24, 5))


def test_sides_are_multiples_of_what_both_prior_and_rows_take(codec: Codec) -> None:
    assert codec.signal_codec.stride == 8
    psc_of(codec).prior.stride = 12
    assert codec.signal_codec.stride == 24


@pytest.mark.parametrize("kind", ["pillow", "tensor", "array"])
def test_it_takes_images_in_memory(codec: Codec, photo: Pixels, kind: str) -> None:
    tensor = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    image: Any = {"pillow": Image.fromarray(photo), "tensor": tensor, "array": photo}[kind]
    assert codec.compress(image) == codec.compress(photo)


def test_a_matrix_of_numpy_is_a_grey_image(codec: Codec, photo: Pixels) -> None:
    grey = np.ascontiguousarray(photo[..., 0])
    assert codec.compress(grey.view(np.matrix)) == codec.compress(grey)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_it_decodes_whatever_holds_bytes(codec: Codec, photo: Pixels, kind: Any) -> None:
    data = codec.compress(photo)
    assert np.array_equal(codec.decompress(kind(data)), codec.decompress(data))
    assert codec.info(kind(data)) == codec.info(data)


@pytest.mark.parametrize("data", [None, "x.pscx", 5, np.zeros(30, np.uint8)])
def test_a_stream_is_bytes(codec: Codec, data: Any) -> None:
    with pytest.raises(TypeError, match=f"stream must be bytes, got {type(data).__name__}"):
        codec.decompress(data)


@pytest.mark.parametrize("name", ["quality", "bpp", "psnr", "max_bytes", "step"])
def test_what_is_asked_for_is_a_number(codec: Codec, photo: Pixels, name: str) -> None:
    for value in ("50", [50.0], True, torch.zeros(2)):
        with pytest.raises(PscxError, match=f"{name} must be a number, got"):
            codec.compress(photo, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(PscxError, match=rf"{name} must be a number of a size up to 2\^64, got 1000"):
        codec.compress(photo, **{name: 10**400})  # type: ignore[arg-type]
    with pytest.raises(PscxError, match="got nan"):
        codec.compress(photo, **{name: float("nan")})  # type: ignore[arg-type]


def test_numbers_of_numpy_and_torch_are_numbers(codec: Codec, photo: Pixels) -> None:
    wanted = codec.compress(photo, step=0.5)
    for value in (np.float32(0.5), torch.tensor(0.5)):
        assert codec.compress(photo, step=value) == wanted  # type: ignore[arg-type]


def test_a_caption_is_a_text(codec: Codec, photo: Pixels) -> None:
    with pytest.raises(TypeError, match="caption must be a text, got int"):
        codec.compress(photo, caption=5)  # type: ignore[arg-type]


def test_restorations_are_counted_from_zero(codec: Codec, photo: Pixels) -> None:
    data = codec.compress(photo)
    for index in (-1, 1 << 32, 10**30):
        with pytest.raises(ValueError, match=rf"number of a restoration must lie in \[0, 2\^32\), got {index}"):
            codec.decompress(data, index=index)
    with pytest.raises(ValueError, match="number of a restoration must lie in"):
        codec.decompress_samples(data, 10**30)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"samples must be at least 1, got {count}"):
            codec.decompress_samples(data, count)
        with pytest.raises(ValueError, match=f"samples must be at least 1, got {count}"):
            codec.simulate(photo, samples=count)


def test_a_simulation_takes_a_restoration_by_its_name(codec: Codec, photo: Pixels) -> None:
    done = codec.simulate(photo, restoration={"name": "mean", "samples": 2})
    assert np.array_equal(done.pixels, codec.decompress(done.data, restoration={"name": "mean", "samples": 2}))
    assert not np.array_equal(done.pixels, codec.simulate(photo, restoration="sample").pixels)


def test_a_codec_decodes_the_streams_of_others(codec: Codec, photo: Pixels, tmp_path: Path) -> None:
    other = load_codec(
        write_codec(tmp_path),
        prior={"correlation": 0.5},
        rows="pca",
        coder="raw",
        quantizer="float8",
        samples=3,
        seed=9,
    )
    done = other.simulate(photo)
    assert np.array_equal(codec.decompress(done.data), done.pixels)


def test_another_sampler_for_the_restoration_travels(photo: Pixels, tmp_path: Path) -> None:
    other = load_codec(write_codec(tmp_path), restoration_sampler={"name": "ddrm", "steps": 5})
    done = other.simulate(photo)
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    assert other.info(done.data)["spec"]["restoration_sampler"] == {**DDRM_2, "steps": 5}


@pytest.mark.parametrize("key", ["sampler", "restoration_sampler"])
@pytest.mark.parametrize(
    "text",
    [
        "{name: dps, steps: 2, scale: 0.1, normalize: false}",
        "{name: pigdm, steps: 2, weighting: score}",
        "{name: nested, steps: 2, inner_steps: 2, warm_start: 2.0}",
    ],
)
def test_every_sampler_travels_from_yaml_to_the_decoder(text: str, key: str, photo: Pixels, tmp_path: Path) -> None:
    """The decoder builds it from the stream alone, with every option, and shows what the encoder simulated."""
    model = CODEC.replace("{name: ddrm, steps: 2}", text) if key == "sampler" else f"{CODEC}    {key}: {text}\n"
    done = load_codec(write_codec(tmp_path, model)).simulate(photo)
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    spec = Decompressor.info(done.data)["spec"][key]
    assert yaml.safe_load(text).items() <= spec.items()


def test_progress_counts_the_iterations(codec: Codec, photo: Pixels) -> None:
    seen: list[tuple[int, int]] = []
    data = codec.compress(photo, progress=lambda *step: seen.append(step))
    codec.decompress(data, progress=lambda *step: seen.append(step))
    assert seen == 2 * [(1, 3), (2, 3), (3, 3)]


def test_info_says_what_is_in_the_stream(codec: Codec, photo: Pixels) -> None:
    data = codec.compress(photo)
    facts = codec.info(data)
    assert (facts["height"], facts["width"], facts["bytes"], facts["seed"]) == (24, 30, len(data), 0)
    assert facts["bpp"] == 8 * len(data) / (24 * 30)
    assert facts["recipe"] is None
    rows = {key: option.default for key, option in parameters_of(Local).items()}
    assert {"growth", "depth", "base", "floor", "candidates"} <= rows.keys()
    assert facts["spec"] == {
        "prior": {"name": "gaussian", "correlation": 0.95, "color": 0.9, "deviation": 0.5},
        "sampler": DDRM_2,
        "rows": {**rows, "name": "local", "block": 8, "per_iteration": 2.5},
        "quantizer": {"name": "uniform", "bits": 14},
        "coder": {"name": "posterior", "degrees": 4, "adapt": True, "gains": None},
        "restoration": {"name": "mean", "samples": 2},
        "samples": 2,
        "iterations": 3,
        "batch": 4,
        "antithetic": False,
        "least_rows": 0.0,
    }
    assert facts["parameter"] == 0.25
    assert facts["fingerprint"] == codec.signal_codec.fingerprint().hex()


def test_the_step_is_in_the_header_and_not_in_the_spec(photo: Pixels, tmp_path: Path) -> None:
    name = write_codec(tmp_path)
    coarse, fine = (load_codec(name, step=step) for step in (0.5, 0.125))
    assert codec_spec(coarse.signal_codec) == codec_spec(fine.signal_codec)
    assert (coarse.info(coarse.compress(photo))["parameter"], psc_of(fine).quantizer.parameter) == (0.5, 0.125)
    assert len(coarse.compress(photo)) < len(fine.compress(photo))
    bits = load_codec(name, quantizer={"bits": 10})
    assert codec_spec(bits.signal_codec)["quantizer"] == {"name": "uniform", "bits": 10}


def test_only_seed_and_step_do_not_make_another_recipe(tmp_path: Path) -> None:
    """The default recipe with a tiny network in place of the shipped one is still recipe 1."""
    prior = {"path": save_prior(tmp_path / "prior", 1)}
    same = load_codec("default", step=0.5, prior=prior, seed=3)
    assert recipe_number(codec_spec(same.signal_codec)) == 1
    assert recipe_number(codec_spec(load_codec("paper-pixel", prior=prior).signal_codec)) == 2
    assert recipe_number(codec_spec(load_codec("default", prior=prior, samples=5).signal_codec)) == 0
    assert recipe_number(codec_spec(load_codec("default", prior=prior, batch=2).signal_codec)) == 0


def test_the_batch_travels(codec: Codec, photo: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's answers may differ in the last bit between two batches, so both sides take the same."""
    seen: list[int] = []
    denoise = Gaussian.denoise

    def counted(prior: Gaussian, x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(len(x))
        return denoise(prior, x, sigma)

    monkeypatch.setattr(Gaussian, "denoise", counted)
    done = load_codec(write_codec(tmp_path), samples=5, batch=2).simulate(photo)
    encoding = seen.copy()
    assert set(encoding) == {1, 2}
    assert psc_of(codec).batch == 4
    for decoder in (Decompressor(), codec):
        seen.clear()
        assert np.array_equal(decoder.decompress(done.data), done.pixels)
        assert seen == encoding


def test_a_recipe_takes_one_byte_and_decodes(photo: Pixels, tmp_path: Path) -> None:
    path = save_prior(tmp_path / "prior", 1)
    codec = load_codec("default", prior={"path": path})
    done = codec.simulate(photo)
    assert codec.info(done.data)["recipe"] == "default"
    assert len(done.data) - codec.info(done.data)["payload_bytes"] <= 24
    assert np.array_equal(Decompressor(prior_path=path).decompress(done.data), done.pixels)


def test_another_prior_is_named_by_its_fingerprint(photo: Pixels, tmp_path: Path) -> None:
    first, second = (save_prior(tmp_path / str(seed), seed) for seed in (1, 2))
    codec = load_codec(write_codec(tmp_path), prior={"name": "ddpm", "path": first})
    data = codec.compress(photo)
    assert codec.info(data)["spec"]["prior"] == {"name": "ddpm", "exact": False}  # nothing to load from
    other = load_codec(write_codec(tmp_path), prior={"name": "ddpm", "path": second})
    here = psc_of(other).prior.fingerprint().hex()
    there = codec.signal_codec.fingerprint().hex()
    with pytest.raises(StreamError, match=rf"another prior \(fingerprint {there}, this one is {here}\).*--prior PATH"):
        Decompressor(prior_path=second).decompress(data)


def test_a_gaussian_prior_is_loaded_from_nowhere(codec: Codec, photo: Pixels) -> None:
    with pytest.raises(ConfigError, match="not loaded from a path"):
        Decompressor(prior_path="somewhere").decompress(codec.compress(photo))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda spec: spec.update(samples=100_000), "samples must be"),
        (lambda spec: spec.update(iterations=0), "iterations must be at least 1 and below 65536, got 0"),
        (lambda spec: spec.update(batch=0), "batch must be at least 1 and below 65536, got 0"),
        (lambda spec: spec.update(batch=4097), "batch must be a word or a number of at most 4096"),
        (lambda spec: spec.update(seed=1), "a spec has the keys"),
        (lambda spec: spec.pop("rows"), "a spec has the keys"),
        (lambda spec: spec.pop("batch"), "a spec has the keys"),
        (lambda spec: spec.update(sampler={"class_path": "os.system"}), "needs the name of a sampler"),
        (lambda spec: spec.update(sampler="os.system"), "unknown sampler"),
        (lambda spec: spec["prior"].update(name="ddpm", path="/etc"), "prior.path cannot come from a stream"),
        (lambda spec: spec["rows"].update(block=4096), "rows.block must lie in 2..32, got 4096"),
        (lambda spec: spec["sampler"].update(stepz=1), "has no option 'stepz'"),
        (lambda spec: spec["sampler"].update(steps="many"), "must be an integer"),
        (lambda spec: spec["sampler"].update(spacing="odd"), "sampler.spacing must be one of"),
        (lambda spec: spec["sampler"].update(eta=[1.0]), "must be a number"),
    ],
)
def test_a_hostile_spec_is_refused(
    codec: Codec, photo: Pixels, change: Callable[[dict[str, Any]], object], part: str
) -> None:
    with pytest.raises(StreamError, match=part):
        codec.decompress(with_spec(codec.compress(photo), change))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"spec": "[" * 60_000}, "spec is not JSON"),
        ({"spec": "[]"}, "a spec has the keys"),
        ({"recipe": 77, "spec": ""}, "recipe 77, and this version of pscx has only 1"),
        ({"fingerprint": b"\0\1\2\3\4\5"}, "another prior.*000102030405"),
        ({"parameter": None}, "needs a parameter"),
    ],
)
def test_a_hostile_header_is_refused(codec: Codec, photo: Pixels, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(StreamError, match=part):
        codec.decompress(forged(codec.compress(photo), **changes))


def test_a_payload_that_is_not_the_encoders_is_refused(codec: Codec, photo: Pixels) -> None:
    header, payload = unpack(codec.compress(photo))
    with pytest.raises(StreamError):
        codec.decompress(pack(header, payload[:4] + bytes(len(payload) - 4)))


def test_a_component_that_is_not_registered_cannot_be_written(codec: Codec, photo: Pixels) -> None:
    class Own(DDRM):
        pass

    psc_of(codec).sampler = Own()
    with pytest.raises(PscxError, match="Own is not a registered sampler"):
        codec.compress(photo)


def test_text_that_is_no_word_cannot_be_written(codec: Codec, photo: Pixels) -> None:
    psc_of(codec).sampler.__dict__["_options"] = {"spacing": "a/b"}
    with pytest.raises(
        PscxError, match=r"^sampler\.spacing must be a word or a number of at most 4096 in a stream, got 'a/b'$"
    ):
        codec.compress(photo)


@pytest.mark.parametrize(
    ("overrides", "option", "value"),
    [({"batch": 5000}, "batch", 5000), ({"rows": {"candidates": 4097}}, "rows.candidates", 4097)],
)
def test_a_number_that_no_decoder_takes_cannot_be_written(
    photo: Pixels, tmp_path: Path, overrides: dict[str, Any], option: str, value: int
) -> None:
    message = f"{option} must be a word or a number of at most 4096 in a stream, got {value}"
    with pytest.raises(PscxError, match=f"^{re.escape(message)}$"):
        load_codec(write_codec(tmp_path), **overrides).compress(photo)


def test_no_sampler_for_the_restoration_is_the_loops(codec: Codec, photo: Pixels) -> None:
    done = codec.simulate(photo)
    assert "restoration_sampler" not in codec.info(done.data)["spec"]
    null = with_spec(done.data, lambda spec: spec.update(restoration_sampler=None))
    assert np.array_equal(codec.decompress(null), done.pixels)


def test_a_picture_too_long_is_refused_before_any_work(codec: Codec) -> None:
    with pytest.raises(ImageError, match="at most 65535 pixels a side, got 70000x16"):
        codec.compress(np.zeros((16, 70_000, 3), np.uint8))


def test_load_codec_names_recipes_where_there_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"'defalt' is neither.*did you mean 'default'"):
        load_codec("defalt")
    for name in ("x" * 300, "a\0b", None, 0):
        with pytest.raises(ConfigError, match="is neither a config file nor a recipe"):
            load_codec(name)  # type: ignore[arg-type]


def test_a_step_that_the_quantizer_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"step: .*got -1"):
        load_codec(write_codec(tmp_path), step=-1)
    with pytest.raises(ConfigError, match=r"step must be a number, got '0\.5'"):
        load_codec(write_codec(tmp_path), step="0.5")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"step must be a number of a size up to 2\^64, got 1000"):
        load_codec(write_codec(tmp_path), step=10**400)
    with pytest.raises(ConfigError, match="float8 takes no parameter"):
        load_codec(write_codec(tmp_path), step=1, quantizer="float8")


def test_a_config_of_an_evaluation_is_a_codec(tmp_path: Path) -> None:
    text = CODEC + "  name: evaluate\n  simulate: false\n  restorations: 3\ndata: {root: x}\n"
    assert isinstance(psc_of(load_codec(write_codec(tmp_path, text))).quantizer, Uniform)


def test_a_spec_is_the_recipe_it_was_read_from() -> None:
    assert recipe_spec(1)["prior"] == {"name": "ddpm", "exact": True}
    assert recipe_spec(1)["quantizer"] == {"name": "trellis", "weight": 0.12, "states": 8, "degrees": 4, "bits": 14}
    assert [recipe_spec(number)["antithetic"] for number in (1, 2)] == [True, False]
    assert recipe_spec(2)["coder"] == {"name": "raw"}
    assert {recipe_spec(number)["batch"] for number in (1, 2)} == {4}
    with pytest.raises(StreamError):
        recipe_spec(0)


def test_the_public_surface_is_what_it_says() -> None:
    for name in pscx.__all__:
        assert getattr(pscx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'codek'"):
        _ = pscx.codek
    assert Header.__name__ not in pscx.__all__
