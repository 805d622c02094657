"""YAML and JSON of strangers: what is refused, by each way in, and that it takes no time."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from tiny import CODEC, save_prior, write_codec

from pscx.cli.main import main
from pscx.coders.table import read_table
from pscx.config import Checker, ConfigError, Layer, WrittenRun, option_layer, read_yaml, split_options
from pscx.data import DATA
from pscx.runtime.safe_yaml import BYTES, DEPTH, UnreadableError, parse_json, parse_yaml, read_bounded, read_json

LETTERS = "abcdefghi"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise(LETTERS)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in pairwise(LETTERS)
)
STAIRS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))
HOSTILE = {
    "aliases that multiply": (BOMB, "values, aliases included in line"),
    "merges that multiply": (MERGES, "values, aliases included in line"),
    "aliases that nest": (STAIRS, "nest over 64 levels deep in line"),
    "brackets": ("[" * 100_000, "nest over 64 levels deep in line 1"),
    "braces": ("{" * 100_000, "nest over 64 levels deep in line 1"),
    "blocks": ("- " * 5000 + "a", "nest over 64 levels deep in line 1"),
    "recursion": ("model: &m {x: *m}", "the alias '*m' stands for what it is part of in line 1"),
    "recursive list": ("model: &m\n- a\n- *m", "the alias '*m' stands for what it is part of in line 3"),
    "a key twice": ("model: {}\ndata: {}\nmodel: {}", "the key 'model' is given twice, in line 1 and again in line 3"),
    "a key twice below": ("model:\n  a: 1\n  b: 2\n  a: 3", "the key 'a' is given twice, in line 2 and again in"),
    "a key twice as text": ("model: {1: a, '1': b}", "the key '1' is given twice"),
    "a long key": (f"? {'k' * 900}\n: 1\n? {'k' * 900}\n: 2", "kkk...' is given twice, in line 1 and again in line 3"),
    "a key of brackets": ("? [a]\n: b", "a key is a list or a mapping in line 1"),
    "digits": (f"a: {'9' * 5000}", "a number has over 400 characters in line 1"),
    "minutes": (f"a: 1{':59' * 100_000}", "a number has over 400 characters in line 1"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "the tag 'tag:yaml.org,2002:python/object/apply:os.sys"),
    "an escape": ("a: \x1b[2J", "is not valid YAML: unacceptable character #x001b"),
    "no UTF-8": ("a: \udcff", "is not valid YAML: 'utf-8' codec can't decode"),
    "size": (f"a: {'x' * BYTES}", "bytes, the limit for this kind of file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, says = HOSTILE[name]
    path = tmp_path / "codec.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    for command in (["test"], ["compress", "a.png"], ["ablate"], ["cite"], ["fit"]):
        assert main([command[0], *command[1:], *(["--config", str(path)])]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert says in error
        assert str(path) in error
        assert "\x1b" not in error
        assert len(error) < 300 + len(str(path))


def test_an_ablation_s_base_is_read_likewise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "base.yaml").write_text("model: &m {x: *m}")
    (tmp_path / "grid.yaml").write_text(
        "base: base.yaml\naxes: {model.codec.samples: [1, 2]}\nrate: model.codec.samples\n"
    )
    assert main(["ablate", "--config", str(tmp_path / "grid.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "base.yaml': the alias '*m'" in error


@pytest.mark.parametrize(
    "option", ["--model.x", "--model", "--data.root", "--model.codec.sampler", "--trainer.devices"]
)
@pytest.mark.parametrize("value", ["[" * 100_000, "{a: &m {x: *m}}", "{a: 1, a: 2}"])
def test_a_hostile_option_is_one_sentence(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "--config", write_codec(tmp_path), option, value]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if option != "--data.root":  # takes text, and says that there is no such folder
        assert error.startswith(f"pscx: option {option}: ")
        assert len(error) < 300


def test_aliases_and_merges_within_bounds_are_read() -> None:
    text = "base: &b {steps: 5, noise: [1, 2]}\nown: {<<: *b, steps: 6}\nlist: [*b, *b]\n"
    base = {"steps": 5, "noise": [1, 2]}
    assert parse_yaml(text, "this") == {"base": base, "own": {**base, "steps": 6}, "list": [base, base]}
    nested = "[" * DEPTH + "]" * DEPTH
    assert parse_yaml(nested, "this") == json.loads(nested)
    with pytest.raises(UnreadableError):
        parse_yaml(f"[{nested}]", "this")
    assert parse_yaml("a: 2020-01-01\nb: =\nc: ~\n", "this") == {"a": "2020-01-01", "b": "=", "c": None}


def data_root(*args: str) -> str:
    layers, rest = split_options([*args])
    assert rest == []
    checker = Checker(layers)
    root: str = checker.component(DATA, {"name": "folder", **checker.tree()["data"]}, "data")["init_args"]["root"]
    return root


@pytest.mark.parametrize("name", ["[1] photos", "[1]", "{a}", "{b: c}", "[open", "photos [1]"])
def test_a_folder_s_name_may_have_brackets(name: str) -> None:
    assert data_root("--data.root", name) == name
    assert data_root(f"--data.root={name}") == name


def test_a_folder_with_brackets_is_evaluated(tmp_path: Path, image_folder: Path) -> None:
    image_folder.rename(tmp_path / "[1] photos")
    where = ["--data.root", str(tmp_path / "[1] photos"), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["test", "--config", write_codec(tmp_path), *where, "--data.subset", "1"]) == 0
    assert (tmp_path / "run" / "summary.csv").exists()


def test_what_is_no_text_must_be_valid_yaml() -> None:
    layers, _ = split_options(["--data.subset", "[1] photos"])
    with pytest.raises(ConfigError, match=r"^option --data\.subset is not valid YAML: .* in line 1$"):
        Checker(layers).component(DATA, {"name": "folder", "subset": "[1] photos"}, "data")


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("--data.root=~/x") == f"{tmp_path}/x"
    values = read_yaml(write_codec(tmp_path, "data: {root: ['~/a', ~b, a~/]}\nckpt_path: ~/last.ckpt\n")).values
    assert values == {"data": {"root": [f"{tmp_path}/a", "~b", "a~/"]}, "ckpt_path": f"{tmp_path}/last.ckpt"}
    assert option_layer("model.codec.prior.path", "~/net").values == {
        "model": {"codec": {"prior": {"path": f"{tmp_path}/net"}}}
    }


def test_init_args_that_are_no_mapping_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_codec(tmp_path, CODEC.replace("prior: gaussian", "prior: {class_path: gaussian, init_args: [1]}"))
    assert main(["test", "--config", config]) == 2
    assert "has no option 'init_args'" in capsys.readouterr().err


def test_nothing_is_imported_for_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checker = Checker([Layer("run", {"data": {"name": "stranger.Data"}})], WrittenRun())
    with pytest.raises(ConfigError, match=r"run: data: 'stranger\.Data' is not a registered class"):
        checker.component(DATA, "stranger.Data", "data")
    assert checker.component(DATA, "pscx.data.folder.FolderData", "data")["class_path"].endswith("FolderData")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"segments": ' + "[" * 65, '"' + '\\"' * 9, "1" * 5000]
)
def test_hostile_json_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    for read in (read_json, read_table):
        with pytest.raises(ValueError, match=r"a\.json'") as caught:
            read(tmp_path / "a.json")
        assert "\n" not in str(caught.value)


def test_brackets_in_text_are_no_depth() -> None:
    assert parse_json('{"a": "[[\\"' + "[" * 100 + '"}', "this") == {"a": '[["' + "[" * 100}


def test_another_encoding_hides_no_depth() -> None:
    """A byte of U+2200 in UTF-16 is that of a quotation mark."""
    assert parse_json('{"a": "\u2200"}'.encode("utf-8-sig"), "this") == {"a": "\u2200"}
    with pytest.raises(UnreadableError, match=r"^this is not valid JSON: 'utf-8' codec"):
        parse_json(f'["\u2200", {"[" * 100_000}'.encode("utf-16"), "this")


def test_a_long_text_takes_memory_in_proportion() -> None:
    text = json.dumps("a" * (1 << 20))
    tracemalloc.start()
    try:
        parse_json(text, "this")
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()


def test_a_file_is_read_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UnreadableError, match="exceeds 4 bytes, the limit"):
        read_bounded(tmp_path / "a", 4)
    with pytest.raises(UnreadableError, match="exceeds 9 bytes, the limit"):
        read_bounded("/dev/zero", 9)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"a": 1', '{"a": ' * 65])
@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_hostile_folder_of_weights_is_one_sentence(
    file: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_prior(tmp_path / "net", 0)
    (tmp_path / "net" / file).write_text(text)
    config = write_codec(tmp_path, CODEC.replace("prior: gaussian", f"prior: {{name: ddpm, path: {path}}}"))
    assert main(["test", "--config", config]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{file}'" in error
