"""A decoder's choice of restoration: any of any stream, with no byte in the stream."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from browser import visited
from PIL import Image
from test_restorations import SHAPE, Numbered, drawing
from tiny import CODEC, EXACT, psc_of, save_prior, write_codec
from torch import Tensor

import pscx
from pscx import Codec, PscxError, StreamError, load_codec
from pscx.cli.main import main
from pscx.codecs import PathCodec, SignalCodec
from pscx.codecs.paths.restoring import DRAWN
from pscx.codecs.paths.walk import Reached
from pscx.codecs.pixels import signal_of
from pscx.codecs.specs import AbsentPrior, recipe_spec, wanted_of_spec
from pscx.compression.restoring import Choice, perception_table, restoration_at, settings_by_perception
from pscx.config.recipes import RECIPES
from pscx.data.folder import BUNDLED
from pscx.demo.views import Views
from pscx.demo.work import Bounds
from pscx.format.info import stream_info
from pscx.format.limits import Limits
from pscx.metrics import psnr
from pscx.rate_control.trials import Pixels
from pscx.restorations import RESTORATIONS, Blend, Draw, Drawn, Mean, Restoration, Sample
from pscx.samplers import DDRM, Nested, with_options

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ASKED: list[Mapping[str, Any]] = [
    {"name": "sample"},
    {"name": "mean", "samples": 3},
    {"name": "blend", "samples": 2, "share": 0.25},
    {"name": "drawn", "restoration": {"name": "mean", "samples": 2}, "eta": 0.7, "steps": 3},
]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior") / "net", 1)


@pytest.fixture(scope="module")
def image() -> Pixels:
    return np.ascontiguousarray(pscx.read_image(BUNDLED / "chelsea.png")[20:44, 40:72])


@pytest.fixture(scope="module")
def psc(prior: str, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(write_codec(tmp_path_factory.mktemp("psc"), EXACT.format(path=prior)))


@pytest.fixture(scope="module")
def fast(prior: str) -> Codec:
    """The recipe, whose number streams have whatever the weights are."""
    return load_codec("fast", step=3.0, prior={"name": "ddpm", "path": prior, "exact": True})


def read_records(run: Path) -> list[dict[str, str]]:
    with (run / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def of_family(prior: str, folder: Path, name: str, **options: Any) -> Codec:
    text = (
        f"model: {{codec: {{name: {name}, prior: {{name: ddpm, path: {prior}, exact: true}}, level: 0.5, steps: 6}}}}"
    )
    return load_codec(write_codec(folder, text, f"{name}.yaml"), **options)


# Restorations


def test_a_blend_lies_between_mean_and_sample() -> None:
    """Of draws 4, 5 and 6, which are 16, 25 and 36."""
    mean, first = (16 + 25 + 36) / 3, 16
    for share in (0.0, 0.25, 1.0):
        for batch in (1, 2, 3):
            restored = Blend(3, share).restore(shifted(4, batch), 0)
            assert restored.shape == SHAPE
            assert restored.unique().item() == pytest.approx(mean + share * (first - mean), abs=1e-12)


def shifted(by: int, batch: int) -> Draw:
    draw = drawing(Numbered(), batch)
    return lambda indices: draw(range(indices.start + by, indices.stop + by))


def test_a_restoration_of_other_draws_is_that_of_another_sampler() -> None:
    asked = Drawn(Drawn(Mean(3), eta=0.2, stop=0.1), eta=0.5, steps=7)
    assert (asked.draws, asked.exact) == (3, True)
    assert asked.drawing == {"eta": 0.5, "steps": 7, "stop": 0.1}
    made = with_options(DDRM(4, 1.0, warm_start=0.3), asked.drawing)
    assert isinstance(made, DDRM)
    assert (made.steps, made.eta, made.course.stop, made.course.warm_start) == (7, 0.5, 0.1, 0.3)
    with pytest.raises(ValueError, match="the sampler 'nested' has no option 'eta': it has steps, inner_steps, "):
        with_options(Nested(), asked.drawing)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Blend, 1), "restoration.samples must be at least 2, got 1"),
        (partial(Blend, 2, 1.5), r"restoration.share must lie in \[0, 1\], got 1.5"),
        (partial(Drawn, Sample(), eta=-0.1), r"restoration.eta must lie in \[0, 1\], got -0.1"),
        (partial(Drawn, Sample(), eta=float("nan")), r"restoration.eta must lie in \[0, 1\], got nan"),
        (partial(Drawn, Sample(), steps=0), "restoration.steps must be at least 1, got 0"),
        (partial(Drawn, Sample(), warm_start=0.0), "restoration.warm_start must be over 0, got 0.0"),
        (partial(Drawn, Sample(), stop=-1.0), "restoration.stop must be at least 0, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Restoration], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Any restoration of any stream


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["name"])
def test_a_stream_decodes_as_if_its_codec_had_the_restoration(
    asked: Mapping[str, Any], psc: Codec, image: Pixels, prior: str, tmp_path: Path
) -> None:
    data = psc.compress(image)
    other = load_codec(write_codec(tmp_path, EXACT.format(path=prior)), restoration=dict(asked)).simulate(image)
    found = psc.decompress(data, restoration=asked)
    assert np.array_equal(found, other.pixels)
    assert not np.array_equal(found, psc.decompress(data))
    for one in pscx.Decompressor(prior_path=prior).decompress_many([data, data], restoration=asked):
        assert isinstance(one, np.ndarray)
        assert np.array_equal(one, found)


def test_a_simulation_restores_as_a_decoder_is_asked_to(psc: Codec, image: Pixels) -> None:
    asked = Drawn(Blend(2, 0.5), eta=0.6)
    plain, other = psc.simulate(image, samples=2), psc.simulate(image, samples=2, restoration=asked)
    assert other.data == plain.data
    wanted = psc.decompress_samples(plain.data, 2, restoration=asked)
    assert [one.tolist() for one in other.images] == [one.tolist() for one in wanted]
    assert other.pixels.tolist() != plain.pixels.tolist()


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddcm", {}), ("turbo_ddcm", {}), ("diffc", {"candidates": 8, "chunk": 8})],
    ids=["ddcm", "turbo_ddcm", "diffc"],
)
def test_a_path_is_restored_from_samples_of_its_last_state(
    name: str, options: dict[str, Any], prior: str, image: Pixels, tmp_path: Path
) -> None:
    """DDIM's steps from there by another formula (Song et al. 2021, Eqs. 12 and 16), and means of them."""
    codec = of_family(prior, tmp_path, name, **options).signal_codec
    assert isinstance(codec, PathCodec)
    signal = signal_of(codec, image)
    _, outcome = codec.encode(signal)
    assert isinstance(outcome, Reached)
    shape, eta = tuple(signal.shape), 0.6

    def sample(index: int) -> Tensor:
        state, level = outcome.state, outcome.level
        for step in range(2):
            x0, after = codec.prior.denoise(state[None], level)[0].double(), level / 2
            deviation = eta * after * sqrt(1 - after**2 / level**2)
            kept = sqrt(after**2 - deviation**2) * (state - x0) / level
            fresh = codec.noise.normal(shape, iteration=DRAWN, sample=index, step=step)
            state, level = x0 + kept + deviation * fresh, after
        return codec.prior.denoise(state[None], level)[0].double()

    asked = codec.restored_by(Drawn(Mean(2), eta=eta, steps=3))
    torch.testing.assert_close(asked.restore(outcome, shape, 1), (sample(2) + sample(3)) / 2, rtol=0, atol=1e-6)
    assert asked.evaluations(5) - asked.evaluations(4) == 6
    assert asked.exact
    plain = codec.restore(outcome, shape)
    assert torch.equal(codec.restored_by(Drawn(Sample(), steps=1)).restore(outcome, shape, 7), plain)
    with pytest.raises(PscxError, match=f"samples of {name} have no option 'stop': they have steps, eta"):
        codec.restored_by(Drawn(Sample(), stop=0.1))


def test_without_fresh_noise_a_path_ends_as_the_flow(prior: str, image: Pixels, tmp_path: Path) -> None:
    codec = of_family(prior, tmp_path, "turbo_ddcm")
    data = codec.compress(image)
    flow = of_family(prior, tmp_path, "turbo_ddcm", flow=3).simulate(image).pixels
    asked = {"name": "drawn", "restoration": "sample", "eta": 0, "steps": 3}
    assert np.array_equal(codec.decompress(data, restoration=asked), flow)


def test_a_family_of_one_restoration_says_so(psc: Codec) -> None:
    with pytest.raises(PscxError, match="the codec psc has one restoration, and takes no other"):
        SignalCodec.restored_by(psc.signal_codec, Sample())


def test_the_work_of_a_restoration_counts_against_limits(psc: Codec, image: Pixels, prior: str) -> None:
    data = psc.compress(image)
    bound = psc_of(psc).evaluations(1)
    decoder = pscx.Decompressor(prior_path=prior, limits=Limits(evaluations=bound))
    decoder.decompress(data)
    decoder.decompress(data, restoration="sample")
    with pytest.raises(StreamError, match=f"{bound + 4} denoiser evaluations"):
        decoder.decompress(data, restoration=Mean(4))
    with pytest.raises(StreamError, match="denoiser evaluations"):
        decoder.replay(data, restorations=[Sample()] * 3)


# Perception


def test_eta_goes_with_a_restoration_that_has_options() -> None:
    with pytest.raises(PscxError, match="needs the name of a restoration"):
        Choice.asked("null", None)
    chosen = Choice.asked("{name: mean, samples: 2}", None, 0.5).restoration
    assert chosen is not None
    assert RESTORATIONS.spec(chosen) == RESTORATIONS.spec(Drawn(Mean(2), 0.5))


def test_the_ends_of_perception_are_those_of_the_table(fast: Codec, image: Pixels) -> None:
    data = fast.compress(image)
    assert stream_info(data)["recipe"] == "fast"
    settings = perception_table()["fast"]
    for place, one in ((0, settings[0]), (1, settings[-1]), (0.5 / (len(settings) - 1), settings[1])):
        assert np.array_equal(fast.decompress(data, perception=place), fast.decompress(data, restoration=one))
    assert np.array_equal(fast.decompress(data, perception=0), fast.decompress(data, perception=0))
    assert next(iter(settings_by_perception("fast"))) == 0
    assert not settings_by_perception("paper-pixel")


def test_perception_is_the_same_in_another_process(fast: Codec, image: Pixels, prior: str, tmp_path: Path) -> None:
    data = fast.compress(image)
    (tmp_path / "a.pscx").write_bytes(data)
    asked = ["decompress", "a.pscx", "--prior", prior, "--perception", "0.9"]
    done = subprocess.run(
        [sys.executable, "-m", "pscx", *asked], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = pscx.read_image(tmp_path / "a.decoded.png")
    assert np.array_equal(found, fast.decompress(data, perception=0.9))


def test_every_entry_of_the_table_restores_its_recipe() -> None:
    """Samples cost no more than the loop, and the options are those that the recipe's sampler has."""
    numbers = {name: number for number, name in RECIPES.items()}
    for name, settings in perception_table().items():
        wanted = wanted_of_spec(recipe_spec(numbers[name]), 0.5, 0)
        for place in range(len(settings)):
            one = restoration_at(place / max(len(settings) - 1, 1), name)
            assert one.exact
            own = replace(wanted, restoration=one)
            made = own.codec(None) if own.form is None else own._made(AbsentPrior())
            assert made.evaluations(1) <= 2 * made.evaluations(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--restoration", "sampel"], "option --restoration: unknown restoration 'sampel' (did you mean 'sample'?)"),
        (["--restoration", "{name: mean, samples: 0}"], "samples must be at least 1, got 0"),
        (["--restoration", "{name: mean, sample: 2}"], "restoration 'mean' has no option 'sample'"),
        (["--restoration", "sample", "--eta", "1.5"], "eta must lie in [0, 1], got 1.5"),
        (["--restoration", "{name: drawn, restoration: mean, eta: x}"], "eta must be a number or null, got 'x'"),
        (["--eta", "0.5"], "eta needs a restoration from samples"),
        (["--perception", "1.01"], "perception must lie in [0, 1], got 1.01"),
        (["--perception", "nan"], "perception must lie in [0, 1], got nan"),
        (["--perception", "x"], "must be a number, got 'x'"),
        (["--perception", "0.5", "--restoration", "mean"], "at most one of restoration and perception may be given"),
        (["--perception", "0.5"], "a.pscx': perception is for streams of the recipes "),
    ],
)
def test_a_bad_choice_is_one_sentence(
    options: list[str],
    message: str,
    psc: Codec,
    prior: str,
    image: Pixels,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.pscx").write_bytes(psc.compress(image))
    assert main(["decompress", str(tmp_path / "a.pscx"), "--prior", prior, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pscx"]


# Test, demo and report


def test_runs_restore_by_choice_and_keep_their_streams(
    tmp_path: Path, image: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with another restoration is another run, and takes no picture from the first, even in one folder."""
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    config = write_codec(tmp_path)
    base = ["test", "--config", config, "--data.root", str(tmp_path / "images")]
    choices = {
        "own": [],
        "sample": ["--model.restoration", "sample"],
        "decoded": ["--model.restoration", "sample", "--model.simulate", "false"],
    }
    for name, options in choices.items():
        assert main([*base, "--trainer.default_root_dir", str(tmp_path / name), *options]) == 0
    streams = {(tmp_path / name / "streams" / "a.pscx").read_bytes() for name in choices}
    pictures = {name: pscx.read_image(tmp_path / name / "reconstructions" / "a.png") for name in choices}
    assert len(streams) == 1
    codec = load_codec(config)
    assert np.array_equal(pictures["own"], codec.decompress(next(iter(streams))))
    assert np.array_equal(pictures["sample"], codec.decompress(next(iter(streams)), restoration="sample"))
    assert np.array_equal(pictures["decoded"], pictures["sample"])
    psnrs = [read_records(tmp_path / name)[0]["psnr"] for name in ("own", "sample")]
    assert float(psnrs[0]) > float(psnrs[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.perception", "2"], "perception must lie in [0, 1], got 2.0"),
        (["--model.perception", "0.5"], "this codec is no recipe"),
        (["--model.perception", "0.5", "--model.restoration", "mean"], "at most one of restoration and perception"),
        (
            [
                "--model.restoration",
                "{name: drawn, restoration: mean, eta: 0.5}",
                "--model.codec.sampler",
                "{name: nested, steps: 1}",
            ],
            "restoration: the sampler 'nested' has no option 'eta'",
        ),
    ],
)
def test_a_run_refuses_a_bad_choice(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data.root", "bundled", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["test", "--config", write_codec(tmp_path), *where, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_config_of_a_run_with_a_choice_compresses(tmp_path: Path, image: Pixels) -> None:
    """What only an evaluation knows is left out."""
    text = CODEC.replace("model:\n", "model:\n  restoration: sample\n")
    assert load_codec(write_codec(tmp_path, text)).compress(image) == load_codec(write_codec(tmp_path)).compress(image)


def test_the_demo_restores_as_the_visitor_chooses(fast: Codec, psc: Codec, image: Pixels, tmp_path: Path) -> None:
    from test_demo import mistake, seen

    data = fast.compress(image)
    path = tmp_path / "a.pscx"
    path.write_bytes(data)
    views = Views({"fast": lambda: fast, "own": lambda: psc}, fast, Bounds(pixels=2000))
    for choose, expected in ((False, fast.decompress(data)), (True, fast.decompress(data, perception=1))):
        pictures = seen(list(views.decode(str(path), choose, 1.0))[-1][1])
        assert np.array_equal(pictures["Decoded"], expected)
    Image.fromarray(image).save(tmp_path / "a.png")
    sentence = mistake(views.compress(str(tmp_path / "a.png"), "own", 50, False, True, 1.0))
    assert sentence.startswith("Perception is for streams of the recipes")


@pytest.fixture(scope="module")
def runs(prior: str, image: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``recipe``, of ``fast``, and ``own``, of another codec, and a report ``page.html`` about both."""
    pytest.importorskip("plotly", reason="the extra 'report' is not installed")
    folder = tmp_path_factory.mktemp("runs")
    (folder / "images").mkdir()
    Image.fromarray(image).save(folder / "images" / "a.png")
    weights = f"{{name: ddpm, path: {prior}, exact: true}}"
    options = {
        "recipe": ["--recipe", "fast", "--model.codec.prior", weights, "--model.codec.quantizer.step", "3.0"],
        "own": ["--config", write_codec(folder)],
    }
    for name, own in options.items():
        where = ["--data.root", str(folder / "images"), "--trainer.default_root_dir", str(folder / name)]
        assert main(["test", *own, *where]) == 0
    asked = ["--restoration", "sample", "--eta", "0.5", "--perception"]
    names = [str(folder / name) for name in options]
    assert main(["report", *names, "-o", str(folder / "page.html"), *asked]) == 0
    return folder


def restorations_of(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """What the page has of each run, beside the reconstruction."""
    from test_report import Page

    return {item["run"]: item["restorations"] for item in Page(runs / "page.html").data["items"]}


def test_reports_show_more_restorations(runs: Path, fast: Codec, image: Pixels) -> None:
    items = restorations_of(runs)
    places = list(settings_by_perception("fast"))
    assert [one["label"] for one in items["own"]] == ["sample, eta 0.5"]
    assert [one["label"] for one in items["recipe"]] == [
        *("sample, eta 0.5", *(f"perception {place:.2g}" for place in places))
    ]
    stream = (runs / "recipe" / "streams" / "a.pscx").read_bytes()
    found = [fast.decompress(stream, restoration=Choice.asked("sample", None, 0.5).restoration)]
    found += [fast.decompress(stream, perception=place) for place in places]
    assert [one["psnr"] for one in items["recipe"]] == pytest.approx([psnr(image, one) for one in found])


def test_a_report_of_no_recipe_refuses_perception(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report", str(runs / "own"), "-o", str(runs / "x.html"), "--perception"]) == 2
    assert capsys.readouterr().err == (
        "pscx: --perception needs a stream of a recipe that has a table, and none is shown\n"
    )


def test_a_slider_goes_through_restorations(runs: Path, chromium: Browser) -> None:
    expected = [{"label": "that of the run"}, *restorations_of(runs)["recipe"]]
    with visited(chromium, (runs / "page.html").as_uri(), width=1280, offline=True) as visit:
        page = visit.page
        page.wait_for_selector("#restoration-control")
        page.focus("#restoration")
        for number, one in enumerate(expected):
            assert page.input_value("#restoration") == str(number)
            assert page.text_content("#restoration-text") == one["label"]
            assert "uri" not in one or page.get_attribute("#after", "src") == one["uri"]
            page.keyboard.press("ArrowRight")
        assert visit.problems == []
