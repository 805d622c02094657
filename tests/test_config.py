"""Configuration: the three ways to write a component, layers over layers, and every mistake as one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden_streams import GOLDEN
from tiny import CODEC, write_codec

from pscx.api import build_codec
from pscx.codecs import PSC
from pscx.codecs.specs import recipe_spec
from pscx.config import (
    RUN_OPTIONS,
    Checker,
    ConfigError,
    Layer,
    Stream,
    build,
    describe,
    merge,
    option_layer,
    read_yaml,
    split_options,
)
from pscx.config.recipes import FOLDER, RECIPES, read_recipe
from pscx.runs.lightning import COMMANDS, _own_options, configuration
from pscx.samplers import DDRM

HUGE = "7" * 400
"""A whole number that is no float."""


def codec(*options: str, text: str = CODEC, folder: Path) -> PSC:
    layers, rest = split_options(["--config", write_codec(folder, text), *options])
    assert rest == []
    signal_codec = build_codec(layers).signal_codec
    assert isinstance(signal_codec, PSC)
    return signal_codec


def error_of(*options: str, folder: Path, text: str = CODEC) -> str:
    with pytest.raises(ConfigError) as caught:
        codec(*options, text=text, folder=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "sampler",
    [
        "{name: ddrm, steps: 7, eta: 0.5}",
        "{class_path: pscx.samplers.DDRM, init_args: {steps: 7, eta: 0.5}}",
        "{class_path: pscx.samplers.ddrm.DDRM, init_args: {steps: 7, eta: 0.5}}",
        "{name: DDRM, steps: 7, eta: 0.5}",
    ],
)
def test_a_component_by_name_and_by_class_path_is_the_same(sampler: str, tmp_path: Path) -> None:
    psc = codec(text=CODEC.replace("{name: ddrm, steps: 2}", sampler), folder=tmp_path)
    assert isinstance(psc.sampler, DDRM)
    assert (psc.sampler.steps, psc.sampler.eta) == (7, 0.5)


def test_a_name_alone_takes_the_defaults(tmp_path: Path) -> None:
    psc = codec(text=CODEC.replace("{name: ddrm, steps: 2}", "ddrm"), folder=tmp_path)
    assert isinstance(psc.sampler, DDRM)
    assert psc.sampler.steps == 50


@pytest.mark.parametrize(
    "options",
    [
        ["--model.codec.sampler", "ddrm", "--model.codec.sampler.eta", "0.5"],
        ["--model.codec.sampler.eta=0.5"],
        ["--model.codec.sampler.init_args.eta", "0.5"],
        ["--model.codec.sampler.class_path", "pscx.samplers.DDRM", "--model.codec.sampler.eta", "0.5"],
        ["--model.codec.sampler", "{name: ddrm, eta: 0.5}"],
        ["--model.codec.sampler", "{eta: 0.5}"],
    ],
)
def test_an_option_keeps_the_others_of_the_same_component(options: list[str], tmp_path: Path) -> None:
    sampler = codec(*options, folder=tmp_path).sampler
    assert isinstance(sampler, DDRM)
    assert (sampler.steps, sampler.eta) == (2, 0.5)


def test_another_component_starts_afresh(tmp_path: Path) -> None:
    psc = codec("--model.codec.rows", "pca", "--model.codec.rows.per_iteration", "5", folder=tmp_path)
    assert type(psc.rows).__name__ == "PCA"
    assert "block" not in vars(psc.rows)
    again = codec("--model.codec.rows", "pca", "--model.codec.rows", "local", folder=tmp_path)
    assert again.rows.stride == 16  # the default, not the 8 of the file


def test_layers_keep_and_replace() -> None:
    base = {"name": "a", "x": 1, "deep": {"name": "b", "y": 2}}
    assert merge(base, {"x": 3}) == {"name": "a", "x": 3, "deep": {"name": "b", "y": 2}}
    assert merge(base, {"deep": "b"}) == base
    assert merge(base, {"deep": "c"}) == {"name": "a", "x": 1, "deep": "c"}
    assert merge(base, {"name": "z", "w": 1}) == {"name": "z", "w": 1}
    assert merge(base, {"deep": None}) == {"name": "a", "x": 1, "deep": None}


def test_the_command_line_wins_over_files_and_later_files_over_earlier(tmp_path: Path) -> None:
    later = write_codec(tmp_path, "model: {codec: {samples: 5, iterations: 6}}", "later.yaml")
    psc = codec("--model.codec.samples", "7", "--config", later, folder=tmp_path)
    assert (psc.samples, psc.iterations) == (7, 6)


@pytest.mark.parametrize(
    "text", ["model: {name: fit_rows, steps: [0.5]}", "model: {name: fit_rows}", "model: fit_rows"]
)
def test_a_recipe_is_for_whatever_module_is_asked_for(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text(f"recipe: fast\n{text}\n")
    model = configuration("fit", split_options(["--config", str(path)])[0])["model"]
    assert model["class_path"].endswith("FitRows")
    assert model["init_args"]["codec"]["init_args"]["samples"] == read_recipe("fast")["model"]["codec"]["samples"]


def test_a_recipe_lies_below_everything(tmp_path: Path) -> None:
    text = "recipe: paper-pixel\nmodel: {codec: {prior: gaussian, samples: 3}}"
    psc = codec("--model.codec.sampler.steps", "9", text=text, folder=tmp_path)
    assert isinstance(psc.sampler, DDRM)
    assert (psc.sampler.steps, psc.sampler.noise_aware, psc.samples, psc.iterations) == (9, False, 3, 64)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            ["--model.codec.sampler", "ddrn"],
            ["option --model.codec.sampler", "unknown sampler 'ddrn'", "did you mean 'ddrm'?"],
        ),
        (["--model.codec.coder", "zip"], ["unknown coder 'zip'", "choose from", "posterior", "raw"]),
        (
            ["--model.codec.sampler.stepz", "3"],
            ["--model.codec.sampler.stepz", "no option 'stepz'", "did you mean 'steps'?"],
        ),
        (["--model.codec.sampler.steps", "many"], ["--model.codec.sampler.steps must be an integer, got 'many'"]),
        (["--model.codec.sampler.eta", "[1]"], ["must be a number, got [1]"]),
        (["--model.codec.sampler.steps", "0"], ["sampler.steps must be at least 1, got 0"]),
        (["--model.codec.samplez", "3"], ["codec 'psc' has no option 'samplez'", "did you mean 'samples'?"]),
        (["--model.samples", "3"], ["has no option 'samples'", "so write model.codec.samples"]),
        (["--model.codec.samples", "0"], ["samples must be at least 1"]),
        (["--model.codec.samples", "null"], ["--model.codec.samples must be an integer, got null"]),
        (["--model.codec.rows", "null"], ["--model.codec.rows is missing", "choose a row rule from"]),
        (["--model.codec.rows", "7"], ["unknown row rule '7'"]),
        (["--model.codec.sampler", "no.such.module"], ["cannot import 'no.such.module'"]),
        (["--model.codec.sampler", "collections.OrderedDict"], ["is not a sampler", "derive from Sampler"]),
        (["--model.codec.samples"], ["option --model.codec.samples needs a value"]),
        (["--model.codec.sampler", "{name: "], ["is not valid YAML"]),
        (["--recipe", "papper"], ["unknown recipe 'papper'", "paper-pixel"]),
        (["--config", "nowhere.yaml"], ["no such config file: 'nowhere.yaml'"]),
        (["--model.codec.sampler.eta", HUGE], ["--model.codec.sampler.eta must be a number, got '777"]),
        (["--model.codec.sampler.steps", "7" * 30], ["sampler.steps must be an integer of a size up to 2^64, got 777"]),
        (["--model.codec.sampler", f"{{eta: {HUGE}}}"], ["sampler.eta must be a number of a size up to 2^64, got 777"]),
        (["--model.codec.rows", f"{{name: learned, weights: [{HUGE}]}}"], ["of a size up to 2^64, got [777"]),
        (["--model.target", f"{{name: max_bytes, value: -{HUGE[1:]}}}"], ["of a size up to 2^64, got -777"]),
    ],
)
def test_a_mistake_is_one_sentence(options: list[str], parts: list[str], tmp_path: Path) -> None:
    message = error_of(*options, folder=tmp_path)
    assert len(message) < 500
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("recipe: 5", ["codec.yaml: recipe must be the name of a recipe, got 5"]),
        ("recipe: [fast]", ["codec.yaml: recipe must be the name of a recipe, got ['fast']"]),
        (
            CODEC.replace("{name: ddrm, steps: 2}", "{name: ddrm, class_path: pscx.samplers.DPS}"),
            ["codec.yaml: model.codec.sampler.class_path: sampler 'ddrm' has no option 'class_path'"],
        ),
        (CODEC.replace("ddrm", "ddrn"), ["codec.yaml: model.codec.sampler: unknown sampler 'ddrn'"]),
        (CODEC.replace("steps: 2", "stepz: 2"), ["codec.yaml: model.codec.sampler.stepz", "no option 'stepz'"]),
        (
            CODEC.replace("samples: 2\n", "samples: x\n"),
            ["codec.yaml: model.codec.samples must be an integer, got 'x'"],
        ),
        (CODEC.replace("    coder: posterior\n", ""), ["model.codec.coder is missing", "posterior"]),
        ("model: {codec: {prior: {correlation: 0.5}}}", ["model.codec.prior needs the name of a prior", "gaussian"]),
        ("data: {}", ["its model section must have a codec"]),
        ("model: train_ddpm", ["its model section must have a codec"]),
        ("- 1", ["must hold a mapping"]),
        ("a: [", ["is not valid YAML", "line 1"]),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, parts: list[str], tmp_path: Path) -> None:
    message = error_of(text=text, folder=tmp_path)
    assert "codec.yaml" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--trainer.max_step", "3"], ["--trainer.max_step", "did you mean 'max_steps'?"]),
        (["--trainer.max_steps", "x"], ["--trainer.max_steps must be an integer"]),
        (["--data", "folders"], ["unknown data module 'folders'", "did you mean 'folder'?"]),
        (["--data.rot", "x"], ["data module 'folder' has no option 'rot'", "did you mean 'root'?"]),
        (["--data.crop", "x"], ["--data.crop must be an integer or null, got 'x'"]),
        (["--model", "evaluat"], ["unknown module 'evaluat'", "did you mean 'evaluate'?"]),
        (["--trainer", "3"], ["--trainer must hold options"]),
    ],
)
def test_a_mistake_in_other_sections_is_one_sentence(options: list[str], parts: list[str], tmp_path: Path) -> None:
    layers, _ = split_options(["--config", write_codec(tmp_path), *options])
    with pytest.raises(ConfigError) as caught:
        configuration("test", layers)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def (", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_class_of_a_module_that_fails_is_told(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_samplers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    text = CODEC.replace("{name: ddrm, steps: 2}", "{class_path: broken_samplers.Mine}")
    message = error_of(text=text, folder=tmp_path)
    assert "codec.yaml: model.codec.sampler cannot be 'broken_samplers.Mine'" in message
    assert f"'broken_samplers' cannot be imported: {reason}" in message
    over = error_of("--model.codec.sampler.steps", "3", text=text, folder=tmp_path)
    assert reason in over


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    layers = [read_yaml(write_codec(tmp_path, CODEC + "trainr: {}\n"))]
    with pytest.raises(ConfigError, match=r"codec.yaml: trainr: there is no such section.*did you mean 'trainer'"):
        configuration("test", layers)


def test_an_evaluation_is_quiet_and_a_training_is_not(tmp_path: Path) -> None:
    tree = configuration("test", [read_yaml(write_codec(tmp_path))])
    trainer = tree["trainer"]
    quiet = (trainer["enable_progress_bar"], trainer["inference_mode"], trainer["default_root_dir"])
    assert quiet == (False, False, "runs/codec")
    fit = configuration("fit", [read_yaml("configs/fit_ddpm.yaml"), *data_folders()])
    assert "enable_progress_bar" not in fit["trainer"]
    assert fit["model"]["init_args"]["network"]["init_args"]["in_channels"] == 12


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.logger.class_path", "CSVLogger", "--trainer.logger.init_args.name", "x"],
        ["--trainer.logger", "{class_path: CSVLogger, init_args: {name: x}}"],
        ["--trainer.logger", "{name: CSVLogger, init_args: {name: x}}"],
    ],
)
def test_an_option_that_is_called_name_is_not_the_class(options: list[str], tmp_path: Path) -> None:
    save_dir = ["--trainer.logger.init_args.save_dir", "y"]
    layers, _ = split_options(["--config", write_codec(tmp_path), *options, *save_dir])
    logger = configuration("test", layers)["trainer"]["logger"]
    assert logger["class_path"] == "lightning.pytorch.loggers.CSVLogger"
    assert (logger["init_args"]["name"], logger["init_args"]["save_dir"]) == ("x", "y")


def test_an_option_whose_name_begins_with_name_is_itself() -> None:
    assert option_layer("a.init_args.name_prefix", "x").values == {"a": {"name_prefix": "x"}}


def test_a_mistake_in_a_logger_is_one_sentence(tmp_path: Path) -> None:
    layers, _ = split_options(["--config", write_codec(tmp_path), "--trainer.logger", "{class_path: TensorBord}"])
    with pytest.raises(ConfigError, match=r"trainer\.logger: .*TensorBord") as caught:
        configuration("test", layers)
    assert "Union" not in str(caught.value)


def data_folders() -> list[Layer]:
    return [option_layer("data.root", "[a, b]"), option_layer("data.val_root", "c")]


def test_brackets_on_the_command_line_are_a_list() -> None:
    fit = configuration("fit", [read_yaml("configs/fit_ddpm.yaml"), *data_folders()])
    assert (fit["data"]["init_args"]["root"], fit["data"]["init_args"]["val_root"]) == (["a", "b"], "c")


def test_what_is_not_a_configuration_option_is_left() -> None:
    layers, rest = split_options(["--ckpt_path", "x", "--model.codec.samples=2", "-h", "--model.help", "file"])
    assert rest == ["--ckpt_path", "x", "-h", "--model.help", "file"]
    assert layers == [Layer("--model.codec.samples", {"model": {"codec": {"samples": "2"}}})]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"name": "ddrm", "spacing": "../../etc/passwd"}, "must be a word or a number"),
        ({"name": "ddrm", "steps": 1_000_000}, "must be a word or a number"),
        ({"name": "ddrm", "eta": float("inf")}, "must be a word or a number"),
        ({"name": "ddrm", "eta": float("nan")}, "must be a word or a number"),
        ({"name": "ddrm", "steps": {"class_path": "os.system"}}, "must be a word or a number"),
        ({"name": "pscx.samplers.DDRM"}, "unknown sampler"),
        ({"name": "os.system"}, "unknown sampler"),
        ({"class_path": "pscx.samplers.DDRM"}, "needs the name of a sampler"),
    ],
)
def test_a_tree_from_a_stream_is_not_trusted(value: Any, part: str) -> None:
    from pscx.samplers import SAMPLERS

    with pytest.raises(ConfigError, match=part):
        Checker([], Stream()).component(SAMPLERS, value, "sampler")


def test_types_in_words() -> None:
    assert describe(int | None) == "an integer or null"
    assert describe(str | list[float]) == "text or list of a number"
    assert describe(bool) == "true or false"


def test_build_passes_on_what_a_constructor_refuses() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        build(DDRM, {"steps": 0})


def test_recipes_mean_what_they_meant() -> None:
    """Their options with all defaults spelt out: a default that changes would change what streams mean.

    After a change on purpose, and never after a release: ``python tests/golden_streams.py`` writes the file.
    """
    assert {RECIPES[n]: recipe_spec(n) for n in RECIPES} == json.loads((GOLDEN / "recipes.json").read_text())


@pytest.mark.parametrize(("number", "name"), list(RECIPES.items()))
def test_every_recipe_is_whole(number: int, name: str) -> None:
    assert list(read_recipe(name)) == ["model"]
    spec = recipe_spec(number)
    parts = {"sampler", "rows", "quantizer", "coder", "restoration"} if "name" not in spec else {"name", "steps"}
    assert {"prior", *parts} <= spec.keys()


def test_every_recipe_file_has_a_number() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(RECIPES.values())
    assert RECIPES[1] == "default"


def test_every_shipped_file_says_what_it_is_for() -> None:
    for path in [*FOLDER.glob("*.yaml"), *Path("configs").rglob("*.yaml")]:
        first, second = path.read_text().splitlines()[:2]
        assert first.startswith("# ")
        assert not second.startswith("#")
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_a_misspelt_section_is_refused_wherever_a_codec_is_read(tmp_path: Path) -> None:
    for key, hint in (("modle", "model"), ("dat", "data"), ("seed", "seed_everything")):
        message = error_of(folder=tmp_path, text=f"{CODEC}{key}: 1\n")
        assert message.startswith(f"{tmp_path / 'codec.yaml'}: {key}: there is no such section or option")
        assert hint in message
        with pytest.raises(ConfigError, match=f"{key}: there is no such section"):
            configuration("test", [read_yaml(tmp_path / "codec.yaml")])


def test_a_codec_may_be_read_from_the_saved_config_of_any_command(tmp_path: Path) -> None:
    """They hold the options of Lightning's commands, which compress knows of without Lightning."""
    assert {option for command in COMMANDS for option in _own_options(command)} == set(RUN_OPTIONS)
    text = "".join(f"{option}: null\n" for option in RUN_OPTIONS)
    assert codec(text=f"{CODEC}trainer: null\ndata: folder\n{text}", folder=tmp_path).samples == 2
