"""Calibration by code length: against predictions that are off by known factors, and ``pscx fit`` through ``main``."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from test_rate import PRIOR, ExactMean, ExactRows
from tiny import write_codec
from tiny_latent import save_stable_diffusion
from torch import Tensor

from pscx.cli.main import main
from pscx.codecs import PSC
from pscx.coders import Posterior
from pscx.coders.adaptive import AdaptiveEncoder, Counts
from pscx.coders.binarization import student_table
from pscx.coders.static import StaticEncoder
from pscx.coders.table import VARIABLE, read_table
from pscx.errors import ImageError
from pscx.quantizers import Uniform
from pscx.restorations import Mean
from pscx.rows import Proposal, Situation
from pscx.training.calibrate import groups_file, read_groups
from pscx.training.fitting import Group, Recorder, by_segment, code_length, fit_posterior, fit_table
from pscx.training.over_images import OverImages, caution, divided

OFF = (0.5, 2.0, 1.25)  # predicted standard deviations over true ones, in each iteration
QUANTIZER = Uniform(0.0625)
SIDE = 12

GAUSSIAN = """\
model:
  codec:
    prior: gaussian
    sampler: {name: ddrm, steps: 2}
    rows: {name: local, block: 8, per_iteration: 2.0}
    quantizer: {name: uniform, step: 0.1}
    coder: posterior
    restoration: {name: mean, samples: 2}
    samples: 3
    iterations: 3
"""


class WrongRows(ExactRows):
    """Exact rows whose predicted variances are off."""

    def propose(self, situation: Situation) -> Proposal:
        proposal = super().propose(situation)
        return replace(proposal, variance=proposal.variance * OFF[situation.iteration] ** 2)


def observed(seeds: range) -> list[list[Group]]:
    """What the codec codes of images of the Gaussian prior, an image a list."""
    covariance = PRIOR.covariance(SIDE, SIDE)
    recorder = Recorder(Posterior())
    psc = PSC(PRIOR, ExactMean(covariance), WrongRows(covariance, 40), QUANTIZER, recorder, Mean(1), None, 1, 3, 1)
    images = []
    for seed in seeds:
        payload, outcome = psc.encode(PRIOR.draw(SIDE, SIDE, torch.Generator().manual_seed(seed))[0])
        assert sum(len(group.symbols) for group in recorder.groups) == len(outcome.measurements)
        assert len(psc.decode(payload, (3, SIDE, SIDE)).measurements) == len(outcome.measurements)
        images.append(recorder.groups)
    return images


@pytest.fixture(scope="module")
def learnt() -> list[list[Group]]:
    return observed(range(12))


def test_factors_that_predictions_are_off_by_are_found(learnt: list[list[Group]]) -> None:
    """Within an eighth of an octave; and that the data is Gaussian."""
    fitted = fit_posterior(QUANTIZER, [group for groups in learnt for group in groups])
    assert fitted.gains is not None
    assert np.abs(np.log2(np.array(fitted.gains) * OFF)).max() < 0.125
    assert fitted.degrees >= 16


def test_code_length_after_is_less_on_other_images(learnt: list[list[Group]]) -> None:
    together = [group for groups in learnt for group in groups]
    fitted, table = fit_posterior(QUANTIZER, together), fit_table(QUANTIZER, together)
    others = observed(range(100, 104))
    before = sum(code_length(Posterior().encoder(), QUANTIZER, groups) for groups in others)
    makers = (fitted.encoder, lambda: StaticEncoder(table), lambda: AdaptiveEncoder(Counts(table, 16, 2048)))
    for make in makers:
        assert sum(code_length(make(), QUANTIZER, groups) for groups in others) < 0.97 * before


@pytest.mark.parametrize(("degrees", "least", "most"), [(4, 4, 4), (0, 16, 32)])
def test_degrees_of_freedom_are_found(degrees: int, least: int, most: int) -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(5, 20_000, generator=generator, dtype=torch.float64)
    value = normal[0] / normal[1:].square().mean(0).sqrt() / 2**0.5 if degrees else normal[0]
    mean, scale = torch.zeros_like(value), torch.ones_like(value)
    fitted = fit_posterior(QUANTIZER, [Group(0, QUANTIZER.quantize(value, mean, scale), mean, scale)])
    assert least <= fitted.degrees <= most
    assert fitted.gains == pytest.approx([1.0], rel=0.05)


def rows(count: int, segment: int = 0, offset: int = 0) -> Group:
    """Equal rows in the context of ratios from 1 to 1.41."""
    symbols = torch.full((count,), QUANTIZER.alphabet // 2 + offset)
    return Group(segment, symbols, torch.zeros(count).double(), torch.full((count,), 0.078125).double())


def test_a_table_holds_relative_frequencies_by_hand() -> None:
    """100 rows, 75 of them zero: the first decision was yes 25 times, the second never; 16 rows of shrinkage each."""
    table = fit_table(QUANTIZER, [rows(75), rows(25, offset=-1)])
    assert table.chances.shape[0] == 1
    prior = student_table()[7] / 65536
    for place, (taken, yes) in enumerate([(100, 25), (25, 0), (0, 0)]):
        general = (yes + 16 * prior[place]) / (taken + 16)
        assert table.chances[0, 7, place] == pytest.approx(65536 * (yes + 16 * general) / (taken + 16), abs=1)
    assert (table.chances[0, :7] == student_table()[:7]).all()


def test_a_segment_without_rows_has_the_gain_before_it() -> None:
    wide = [rows(1, offset=k) for k in (-9, -5, -2, 2, 5, 9)] * 20
    fitted = fit_posterior(QUANTIZER, [*wide, rows(50, segment=2)])
    assert fitted.gains is not None
    assert fitted.gains[0] > 2
    assert fitted.gains[1] == fitted.gains[0]
    assert fitted.gains[2] < 0.5
    assert [sum(len(group.symbols) for group in groups) for groups in by_segment([*wide, rows(50, segment=2)])] == [
        120,
        0,
        50,
    ]


def test_every_so_many_th_image_is_held_out() -> None:
    images: list[Any] = list("abcdefg")
    assert divided(images, 3) == (list("abdeg"), list("cf"))
    assert divided(images, None) == (images, [])
    assert divided(images[:2], 3) == (images[:2], [])


def test_observations_survive_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    groups = [rows(3), rows(0, segment=1), rows(5, segment=2, offset=-4)]
    file.write_bytes(groups_file(groups, "key"))
    found = read_groups(file, "key")
    assert found is not None
    for one, other in zip(groups, found, strict=True):
        assert one.segment == other.segment
        for name in ("symbols", "mean", "scale"):
            expected: Tensor = getattr(one, name)
            assert expected.dtype == getattr(other, name).dtype
            assert torch.equal(expected, getattr(other, name))
    assert read_groups(file, "other") is None
    file.write_bytes(file.read_bytes()[:-30])
    assert read_groups(file, "key") is None
    assert read_groups(tmp_path / "nothing.npz") is None


def fit(root: Path, config: str, folder: Path, *options: str) -> int:
    where = ["--data.root", str(folder), "--trainer.default_root_dir", str(root)]
    return main(["fit", "--config", config, *where, "--model.held_out", "3", *options])


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_calibrates_a_codec_and_the_results_are_used(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, root = write_codec(tmp_path, GAUSSIAN), tmp_path / "fit"
    assert fit(root, config, image_folder) == 0
    captured = capsys.readouterr()
    assert "held out bits" in captured.out
    assert captured.err == ""
    found = table_of(root / "calibration.csv")
    assert [row["coder"] for row in found] == ["before", "posterior", "static", "adaptive"]
    assert all(float(row["learnt_bits"]) < float(found[0]["learnt_bits"]) for row in found[1:])
    assert {path.name for path in (root / "observations").iterdir()} == {"a.npz", "b.npz", "sub__a.npz"}
    monkeypatch.setenv(VARIABLE, str(root))
    sizes = {}
    for name, extra in (("before", []), *((n, ["--config", str(root / f"{n}.yaml")]) for n in ("posterior", "static"))):
        tested = tmp_path / name
        options = ["--data.root", str(image_folder), "--model.simulate", "false", "--data.subset", "2"]
        assert main(["test", "--config", config, *extra, *options, "--trainer.default_root_dir", str(tested)]) == 0
        sizes[name] = sum(int(row["bytes"]) for row in table_of(tested / "images.csv"))
    spec = yaml.safe_load((root / "posterior.yaml").read_text())["model"]["codec"]["coder"]
    assert len(spec["gains"]) == 3
    capsys.readouterr()
    refused_without_its_table(tmp_path / "static" / "streams" / "a.pscx", root, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--model.held_out", "4"], "give at least 4: one in 4 is held out"),
        (["--model.held_out", "null"], "set"),
    ],
)
def test_savings_on_the_images_learnt_from_are_called_so(
    options: list[str], remedy: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_codec(tmp_path, GAUSSIAN)
    assert fit(tmp_path / "fit", config, image_folder, *options) == 0
    says = "what is saved is of the 3 images that were learnt from, which flatters: none was held out; " + remedy
    assert says in capsys.readouterr().out
    assert fit(tmp_path / "fit", config, image_folder) == 0
    assert "learnt from" not in capsys.readouterr().out


def test_images_held_out_on_which_nothing_was_measured_are_not_called_none() -> None:
    """As where the rows of the only one were not worth measuring."""
    assert "nothing was measured on those held out" in caution(6, 5)
    assert "none was held out; give at least 5" in caution(4, 5)


def refused_without_its_table(
    stream: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that lacks the table, or has another one of that name, says so in one sentence."""
    output = str(stream.with_suffix(".png"))
    (root / "elsewhere").mkdir()
    monkeypatch.setenv(VARIABLE, str(root / "elsewhere"))
    assert main(["decompress", str(stream), "-o", output]) == 2
    assert "coder.table: 'calibrated' is not known: put calibrated.json into a folder" in capsys.readouterr().err
    table = read_table(root / "calibrated.json")
    table.chances[0, 0, 0] += 1
    (root / "elsewhere" / "calibrated.json").write_bytes(table.to_json())
    assert main(["decompress", str(stream), "-o", output]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pscx: ")
    assert message.count("\n") == 1
    assert "coder.table: 'calibrated' must be the one with digest 't" in message
    monkeypatch.setenv(VARIABLE, str(root))
    assert main(["decompress", str(stream), "-o", output]) == 0


def test_an_interrupted_fit_goes_on_where_it_was(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, root = write_codec(tmp_path, GAUSSIAN), tmp_path / "fit"
    encode, calls = PSC.encode, []

    def counted(self: PSC, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, *args)

    monkeypatch.setattr(PSC, "encode", counted)
    assert fit(root, config, image_folder) == 130
    assert [path.name for path in (root / "observations").iterdir()] == ["a.npz"]
    assert not (root / "calibration.csv").exists()
    assert fit(root, config, image_folder) == 0
    assert len(calls) == 4
    for option in (["--model.codec.restoration", "sample"], ["--model.codec.coder", "raw"]):
        assert fit(root, config, image_folder, *option) == 0  # the symbols do not depend on it
    assert len(calls) == 4
    assert fit(tmp_path / "whole", config, image_folder, "--model.codec.coder", "raw") == 0
    assert (tmp_path / "whole" / "calibrated.json").read_bytes() == (root / "calibrated.json").read_bytes()
    assert len(calls) == 7
    assert fit(root, config, image_folder, "--model.codec.quantizer.step", "0.5") == 0
    assert len(calls) == 10
    assert (tmp_path / "fit-1" / "calibration.csv").exists()  # another configuration


def test_an_image_that_cannot_be_read_is_left_out(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "aa.png").write_bytes(b"no image")
    assert fit(tmp_path / "fit", write_codec(tmp_path, GAUSSIAN), image_folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: one of the images could not be learnt from, all others are done: ")
    assert error.count("\n") == 1
    assert (tmp_path / "fit" / "left_out.csv").read_text().startswith("name,reason\naa,")
    assert len(table_of(tmp_path / "fit" / "calibration.csv")) == 4


def test_what_another_machine_has_seen_is_missed(tmp_path: Path) -> None:
    """Nothing is learnt from fewer images than were shared out."""
    here = SimpleNamespace(root=tmp_path, kept="observations", file_of=lambda name: tmp_path / f"{name}.npz")
    (tmp_path / "a.npz").write_bytes(groups_file([], "key"))
    assert OverImages.seen(here, ["a"], read_groups) == [[]]  # type: ignore[arg-type]  # only what it asks for
    with pytest.raises(ImageError, match=r"'.*observations' lacks 4 of 5 images \(b, c, d, \.\.\.\): "):
        OverImages.seen(here, list("abcde"), read_groups)  # type: ignore[arg-type]  # only what it asks for


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model.table", "Mine.json"], "table must be a plain lower-case word, got 'Mine.json'"),
        (["--model.held_out", "1"], "held_out must be at least 2, or none, got 1"),
        (["--model.restorations", "2"], "has no option 'restorations'"),
    ],
)
def test_mistakes_are_sentences(
    options: list[str], part: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path / "fit", write_codec(tmp_path, GAUSSIAN), image_folder, *options) == 2
    assert part in capsys.readouterr().err


def test_the_digest_is_in_the_stream(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_codec(tmp_path, GAUSSIAN.replace("coder: posterior", "coder: static"))
    output = tmp_path / "x.pscx"
    assert main(["compress", str(image_folder / "a.png"), "-o", str(output), "--config", config]) == 0
    capsys.readouterr()
    assert main(["info", str(output), "--json"]) == 0
    coder = json.loads(capsys.readouterr().out)["spec"]["coder"]
    assert coder["table"] == "photographs"
    assert coder["digest"].startswith("t")
    assert len(coder["digest"]) == 9


def test_captions_are_part_of_what_is_calibrated(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop runs under the caption, and another caption is another observation."""
    prior = f"{{name: stable_diffusion, path: {save_stable_diffusion(tmp_path / 'prior')}}}"
    text = GAUSSIAN.replace("prior: gaussian", f"prior: {prior}")
    text = text.replace("{name: local, block: 8, per_iteration: 2.0}", "{name: pca, per_iteration: 2}")
    config, conditioned, told = write_codec(tmp_path, text), PSC.conditioned, []

    def seen(self: PSC, caption: str) -> PSC:
        told.append(caption)
        return conditioned(self, caption)

    monkeypatch.setattr(PSC, "conditioned", seen)
    for caption in ("a cat", "a cat", "a dog"):
        options = ["--model.caption", f"{{name: fixed, text: {caption}}}", "--data.subset", "1"]
        assert fit(tmp_path / "fit", config, image_folder, *options) == 0
    assert told == ["a cat", "a dog"]
    capsys.readouterr()
    plain = write_codec(tmp_path, GAUSSIAN, "plain.yaml")
    assert fit(tmp_path / "fit", plain, image_folder, "--model.caption", "{name: fixed, text: x}") == 2
    assert "takes no captions" in capsys.readouterr().err
