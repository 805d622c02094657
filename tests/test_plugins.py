"""Plugins: where they are loaded from, what works with their components, and every way in which they can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import CODEC, write_codec

import pscx
from pscx import ConfigError, Decompressor, PscxError, StreamError, load_codec, load_plugins, read_image
from pscx.cli.main import main
from pscx.config.plugins import FAILURES, load
from pscx.data import DATA
from pscx.format.container import pack, unpack
from pscx.registry import RegistrationError, Registry, origin
from pscx.restorations import RESTORATIONS
from pscx.rows import ROWS
from pscx.samplers import DDRM, SAMPLERS, Sampler

pytestmark = pytest.mark.usefixtures("forget_plugins")

LAZY = """\
from torch import Tensor

from pscx.samplers import DDRM, SAMPLERS, Problem, Sampler


@SAMPLERS.register("lazy")
class Lazy(Sampler):
    \"\"\"DDRM with a fixed number of steps.\"\"\"

    def __init__(self, steps: int = 2) -> None:
        if steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {steps}")
        self.inner = DDRM(steps)

    def sample(self, problem: Problem, indices: range) -> Tensor:
        return self.inner.sample(problem, indices)
"""
CONFIG = CODEC.replace("{name: ddrm, steps: 2}", "lazy")


def folder_of(root: Path, **files: str) -> Path:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "own", lazy=LAZY)


@pytest.fixture
def photo(image_folder: Path) -> Path:
    return image_folder / "a.png"


@pytest.fixture
def stream(folder: Path, photo: Path, tmp_path: Path, forget_plugins: Callable[[], None]) -> Path:
    """Made with the plugin, which is forgotten again."""
    path = tmp_path / "x.pscx"
    load_plugins(folder)
    path.write_bytes(load_codec(write_codec(tmp_path, CONFIG)).compress(read_image(photo)))
    forget_plugins()
    return path


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("pscx: ") for line in capsys.readouterr().err.splitlines()]


def test_a_plugin_is_used_on_every_command(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, stream, plugins = write_codec(tmp_path, CONFIG), tmp_path / "x.pscx", ["--plugins", str(folder)]
    assert main(["compress", str(photo), "-o", str(stream), "--config", config, *plugins]) == 0
    root = ["--trainer.default_root_dir", str(tmp_path / "run"), "--data.root", str(photo)]
    assert main([f"--plugins={folder}", "test", "--config", config, *root]) == 0
    assert (tmp_path / "run" / "streams" / "a.pscx").read_bytes() == stream.read_bytes()
    assert main(["decompress", str(stream), *plugins]) == 0
    decoded = read_image(tmp_path / "x.decoded.png")
    assert np.array_equal(decoded, read_image(tmp_path / "run" / "reconstructions" / "a.png"))
    same = load_codec(write_codec(tmp_path)).simulate(read_image(photo)).pixels  # DDRM with two steps
    assert np.array_equal(decoded, same)
    assert capsys.readouterr().err == ""


def test_the_command_line_sets_its_options(folder: Path, photo: Path, tmp_path: Path) -> None:
    config, stream = write_codec(tmp_path), tmp_path / "x.pscx"
    options = ["--model.codec.sampler", "lazy", "--model.codec.sampler.steps", "3", "--plugins", str(folder)]
    assert main(["compress", str(photo), "-o", str(stream), "--config", config, *options]) == 0
    spec = pscx.stream_info(stream.read_bytes())["spec"]
    assert spec["sampler"] == {"name": "lazy", "steps": 3}


def test_the_environment_names_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder_of(tmp_path / "other", idle=LAZY.replace("lazy", "idle"))
    monkeypatch.setenv("PSCX_PLUGINS", f"{folder}{os.pathsep}{other}{os.pathsep}")
    assert main(["components", "sampler"]) == 0
    text = capsys.readouterr().out
    assert (
        f"  lazy: DDRM with a fixed number of steps.\n    from {folder / 'lazy.py'}\n    steps = 2  (an integer)\n"
        in text
    )
    assert f"    from {other / 'idle.py'}\n" in text
    monkeypatch.setenv("PSCX_PLUGINS", "nowhere")
    assert main(["components"]) == 2
    assert warnings_of(capsys) == ["PSCX_PLUGINS: the plugin folder 'nowhere' does not exist"]


def test_python_loads_them_too(folder: Path, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown sampler 'lazy'"):
        load_codec(write_codec(tmp_path, CONFIG))
    load_plugins(folder)
    load_plugins(str(folder), folder)  # once more is nothing new
    codec = load_codec(write_codec(tmp_path, CONFIG), sampler={"steps": 1})
    done = codec.simulate(read_image(photo))
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    assert origin(SAMPLERS.classes["lazy"]) == str(folder / "lazy.py")
    assert origin(DDRM) is None


def test_new_and_mended_files_are_found_by_loading_again(folder: Path) -> None:
    folder_of(folder, broken="1 / 0")
    assert [failure.module for failure in load([folder])] == ["pscx_plugins.broken"]
    before = folder.stat()
    folder_of(folder, broken=LAZY.replace("lazy", "mended"), fresh=LAZY.replace("lazy", "fresh"))
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as where the clock of a file system is coarse
    assert load([folder]) == []
    assert FAILURES == {}
    assert {"lazy", "mended", "fresh"} <= SAMPLERS.classes.keys()


def test_a_saved_config_loads_again(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own, where nothing is loaded yet."""
    root, again = tmp_path / "run", tmp_path / "again"
    options = ["--data.root", str(photo), "--plugins", str(folder), "--trainer.default_root_dir"]
    assert main(["test", "--config", write_codec(tmp_path, CONFIG), *options, str(root)]) == 0
    saved = root / "config.yaml"
    assert "class_path: pscx_plugins.lazy.Lazy" in saved.read_text()
    command = [sys.executable, "-m", "pscx.cli.main", "test", "--config", str(saved), *options, str(again)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    stream = Path("streams") / "a.pscx"
    assert (root / stream).read_bytes() == (again / stream).read_bytes()


def test_without_the_plugin_a_saved_config_says_how(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_codec(tmp_path, CODEC.replace("ddrm", "pscx_plugins.lazy.Lazy"))
    for command in (["test", "--data.root", str(photo)], ["compress", str(photo)]):
        assert main([*command, "--config", config]) == 2
        (message,) = warnings_of(capsys)
        assert "model.codec.sampler cannot import 'pscx_plugins.lazy.Lazy'" in message
        assert "--plugins FOLDER" in message


def test_a_stream_without_its_plugin_names_what_is_missing(
    folder: Path, stream: Path, forget_plugins: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decompress", str(stream)]) == 2
    (message,) = warnings_of(capsys)
    assert "sampler: unknown sampler 'lazy'" in message
    assert "--plugins FOLDER" in message
    assert main(["info", str(stream)]) == 0  # what made it is still said
    assert "name: lazy" in capsys.readouterr().out


def test_a_stream_imports_nothing(folder: Path, photo: Path, tmp_path: Path) -> None:
    """Not even a plugin that lies ready in a folder that was named and whose other plugins are loaded."""
    load_plugins(folder)
    folder_of(folder, waiting="raise AssertionError('imported')")
    data = load_codec(write_codec(tmp_path, CONFIG)).compress(read_image(photo))
    header, payload = unpack(data)
    for name in ("waiting", "pscx_plugins.waiting.Lazy", "os.system"):
        spec = {**json.loads(header.spec), "sampler": {"name": name}}
        forged = pack(replace(header, spec=json.dumps(spec)), payload)
        with pytest.raises(StreamError, match=f"unknown sampler '{name}'"):
            Decompressor().decompress(forged)
    assert "pscx_plugins.waiting" not in sys.modules


BROKEN = {
    "syntax": ("class Broken(:\n", "SyntaxError: "),
    "import": (
        "import numpy\nimport no_such_module\n",
        "line 2: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "exit": ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    "kind": (LAZY.replace("(Sampler)", ""), "sampler 'lazy' must be a class that derives from Sampler, got Lazy"),
    "function": (
        "from pscx.rows import ROWS\n@ROWS.register('lazy')\ndef rows(): ...\n",
        "line 2: row rule 'lazy' must be a class that derives from RowRule, got rows",
    ),
    "methods": (LAZY.replace("def sample", "def simple"), "sampler 'lazy' lacks sample"),
    "name": (LAZY.replace('"lazy"', '"La/zy"'), "registered under a lower-case word, as in 'ddrm', got 'La/zy'"),
    "bare": (LAZY.replace('("lazy")', ""), "registered under a lower-case word"),
    "untyped": (LAZY.replace("steps: int", "steps"), "sampler 'lazy': the option 'steps' needs a type hint"),
    "kwargs": (LAZY.replace("steps: int = 2", "**steps: int"), "a config cannot set the option '**steps: int'"),
    "hint": (LAZY.replace("steps: int", 'steps: "Nowhere"'), "NameError: name 'Nowhere' is not defined"),
    "taken": (LAZY.replace('"lazy"', '"ddrm"'), "sampler 'ddrm' is taken by pscx.samplers.ddrm.DDRM"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_set_aside(case: str, tmp_path: Path) -> None:
    text, cause = BROKEN[case]
    broken = folder_of(tmp_path / "broken", broken=text, after=LAZY.replace("lazy", "after"))
    before = {registry: dict(registry.classes) for registry in Registry.kinds.values()}
    (failure,) = load([broken])
    assert str(failure).startswith(f"plugin '{broken / 'broken.py'}' failed to load: ")
    assert cause in failure.cause
    before[SAMPLERS]["after"] = SAMPLERS.classes["after"]
    assert {registry: registry.classes for registry in Registry.kinds.values()} == before
    assert "pscx_plugins.broken" not in sys.modules


def test_a_broken_plugin_is_a_warning_and_stops_nothing_else(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(folder, broken="1 / 0\n")
    assert main(["compress", str(photo), "--config", write_codec(tmp_path, CONFIG), "--plugins", str(folder)]) == 0
    (message,) = warnings_of(capsys)
    file = folder / "broken.py"
    assert message == f"warning: plugin '{file}' failed to load: line 1: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("name", ["lazy", "Lazy", "pscx_plugins.broken.Lazy"])
def test_asking_for_a_component_of_a_broken_plugin_is_an_error(
    name: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder_of(tmp_path / "broken", broken=LAZY + "import no_such_module\n")
    config = write_codec(tmp_path, CODEC.replace("ddrm", name))
    options = ["--config", config, "--plugins", str(broken)]
    for command in (["compress", str(photo)], ["test", "--data.root", str(photo)]):
        assert main([*command, *options]) == 2
        warning, message = warnings_of(capsys)
        assert warning.startswith("warning: ")
        assert (
            f"codec.yaml: model.codec.sampler: sampler '{name}' is not available: plugin '{broken / 'broken.py'}'"
            in message
        )
        assert "failed to load: line 17: ModuleNotFoundError: No module named 'no_such_module'" in message
    assert main(["components", name, "--plugins", str(broken)]) == 2
    assert "no_such_module" in warnings_of(capsys)[1]


def test_a_stream_whose_plugin_is_broken_says_so(
    folder: Path, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(folder, lazy="import no_such_module\n" + LAZY)
    assert main(["decompress", str(stream), "--plugins", str(folder)]) == 2
    assert "sampler 'lazy' is not available" in warnings_of(capsys)[1]


def test_what_a_broken_plugin_claims_does_not_hide_another_kind(folder: Path, tmp_path: Path) -> None:
    """A row rule 'lazy' that fails has nothing to do with the sampler 'lazy' that is there."""
    text = "from pscx.rows import ROWS\nROWS.register('lazy')(int)\n"
    with pytest.warns(UserWarning, match="row rule 'lazy' must be a class that derives from RowRule, got int"):
        load_plugins(folder, folder_of(tmp_path / "rows", rows=text))
    assert load_codec(write_codec(tmp_path, CONFIG))
    with pytest.raises(ConfigError, match=r"row rule 'lazy' is not available: plugin .*rows\.py"):
        load_codec(write_codec(tmp_path), rows="lazy")


def test_two_plugins_of_one_name(folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(folder, second=LAZY)
    options = ["--config", write_codec(tmp_path), "--plugins", str(folder)]
    assert main(["compress", str(photo), *options]) == 0
    files = f"plugin '{folder / 'second.py'}' failed to load: line 6: sampler 'lazy' is taken by {folder / 'lazy.py'}"
    assert warnings_of(capsys) == [f"warning: {files}"]
    assert main(["compress", str(photo), *options, "--force", "--model.codec.sampler", "lazy"]) == 2
    assert warnings_of(capsys)[1] == f"option --model.codec.sampler: sampler 'lazy' is not available: {files}"


def test_two_files_of_one_name(folder: Path, tmp_path: Path) -> None:
    """One package holds all folders, so the second file would never be looked at."""
    other = folder_of(tmp_path / "other", lazy=LAZY.replace("lazy", "idle"))
    (failure,) = load([folder, other])
    assert str(failure) == (
        f"plugin '{other / 'lazy.py'}' failed to load: its name is that of '{folder / 'lazy.py'}': rename one"
    )
    assert "idle" not in SAMPLERS.classes


def test_a_file_that_cannot_be_a_module(tmp_path: Path) -> None:
    (failure,) = load([folder_of(tmp_path / "own", **{"my-plugin": LAZY})])
    assert "must be an identifier" in failure.cause


def test_what_is_no_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "mine.py").mkdir()
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    failures = load([tmp_path])
    assert [failure.source.rpartition("/")[2] for failure in failures] == ["gone.py'", "mine.py'"]


def test_files_that_begin_with_an_underscore_are_for_others(tmp_path: Path) -> None:
    own = folder_of(
        tmp_path / "own", _steps="STEPS = 5\n", lazy=LAZY.replace("= 2", "= STEPS") + "\nfrom . import _steps\n"
    )
    (failure,) = load([own])
    assert "NameError" in failure.cause
    folder_of(own, lazy="from ._steps import STEPS\n" + LAZY.replace("= 2", "= STEPS"))
    assert load([own]) == []


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["components", "--plugins", "nowhere"], "--plugins: the plugin folder 'nowhere' does not exist"),
        (["components", "--plugins", "pyproject.toml"], "'pyproject.toml' is a file: plugins are loaded by folder"),
        (["components", "--plugins"], "option --plugins needs a folder"),
        (["components", "--plugins", "--json"], "option --plugins needs a folder"),
        (["components", "--plugins="], "option --plugins needs a folder"),
        (["info", "x.pscx", "--plugins", "nowhere"], "--plugins: the plugin folder 'nowhere' does not exist"),
        (["test", "--config", "configs/gaussian.yaml", "--plugin", "x"], "'--plugin' (did you mean '--plugins'?)"),
        (["compress", "x.png", "--", "--plugins"], "no such file: '--plugins'"),
    ],
)
def test_a_wrong_option_is_one_sentence(args: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    messages = warnings_of(capsys)
    assert part in messages[-1]
    with pytest.raises(PscxError, match="'nowhere' does not exist"):
        load_plugins("nowhere")


def test_a_misspelt_option_of_a_plugin(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, part in (
        (
            "{name: lazy, stepz: 3}",
            "model.codec.sampler.stepz: sampler 'lazy' has no option 'stepz' (did you mean 'steps'?)",
        ),
        ("{name: lazy, steps: x}", "model.codec.sampler.steps must be an integer, got 'x'"),
        ("{name: lazy, steps: 0}", "sampler.steps must be at least 1, got 0"),
        ("lzy", "model.codec.sampler: unknown sampler 'lzy' (did you mean 'lazy'?)"),
    ):
        config = write_codec(tmp_path, CODEC.replace("{name: ddrm, steps: 2}", text))
        for command in (["compress", str(photo)], ["test", "--data.root", str(photo)]):
            assert main([*command, "--config", config, "--plugins", str(folder)]) == 2
            (message,) = warnings_of(capsys)
            assert part in message


def installed(site: Path, text: str, entry: str = "lazy = outside.samplers") -> None:
    """A package as pip would leave it."""
    folder_of(site, setup="").joinpath("outside").mkdir()
    folder_of(site / "outside", __init__="", samplers=text)
    info = site / "outside-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[pscx.plugins]\n{entry}\n")


def test_an_installed_package(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path / "site", LAZY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["compress", str(photo), "--config", write_codec(tmp_path, CONFIG)]) == 0
    assert main(["components", "lazy"]) == 0
    text = capsys.readouterr().out
    assert f"from {tmp_path / 'site' / 'outside' / 'samplers.py'}" in text
    assert "class outside.samplers.Lazy" in text


@pytest.mark.parametrize(
    ("text", "entry", "cause"),
    [
        ("import no_such_module\n", "lazy = outside.samplers", "line 1: ModuleNotFoundError"),
        ("", "lazy = outside.nothing", "ModuleNotFoundError: No module named 'outside.nothing'"),
        ("", "lazy = outside.samplers:Lazy", "AttributeError: "),
    ],
)
def test_a_broken_package(text: str, entry: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "site", text, entry)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (failure,) = load([])
    assert failure.source == f"'{entry.removeprefix('lazy = ')}' of outside"
    assert cause in failure.cause
    with pytest.raises(ConfigError, match="sampler 'lazy' is not available: plugin 'outside"):
        load_codec(write_codec(tmp_path, CONFIG))


def test_a_data_module_of_a_plugin(photo: Path, tmp_path: Path) -> None:
    text = (
        "from pscx.data import DATA, FolderData\n"
        "@DATA.register('first')\n"
        "class First(FolderData):\n"
        "    def __init__(self, root: str = 'bundled') -> None:\n"
        "        super().__init__(root, subset=1)\n"
    )
    own = folder_of(tmp_path / "own", first=text)
    options = ["--plugins", str(own), "--data", "first", "--data.root", str(photo.parent)]
    root = ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["test", "--config", write_codec(tmp_path), *options, *root]) == 0
    assert [path.name for path in (tmp_path / "run" / "streams").iterdir()] == ["a.pscx"]
    assert "first" in DATA.classes


def test_a_registry_says_what_is_wrong() -> None:
    with pytest.raises(RegistrationError, match=r"'mean' is taken by pscx\.restorations\.mean\.Mean"):
        RESTORATIONS.register("mean")(RESTORATIONS.get("mean"))
    with pytest.raises(RegistrationError, match="row rule 'dense' must be a class that derives from RowRule, got DDRM"):
        ROWS.register("dense")(DDRM)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(KeyError, match=r"unknown sampler 'ddrn' \(did you mean 'ddrm'\?\)"):
        SAMPLERS.get("ddrn")
    assert SAMPLERS.get("DDRM") is DDRM
    with pytest.raises(KeyError, match="Sampler is not a registered sampler"):
        SAMPLERS.name_of(Sampler)


def test_components_by_kind_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*args: str) -> str:
        assert main(["components", *args]) == 0
        return capsys.readouterr().out

    everything = shown()
    for part in (
        "prior:\n",
        "row rule:\n",
        "module:\n  ",
        "data module:\n  crops: ",
        "  evaluate: Compress",
        "(Prior, required)",
    ):
        assert part in everything
    assert "start = null  (a number or null)" in everything
    samplers = shown("sampler")
    assert samplers in everything
    assert "prior:" not in samplers
    assert shown("--kind", "sampler") == shown("restoration_sampler") == samplers
    assert shown("row rule") == shown("rows") == shown("--kind", "rows")
    whole = shown("ddrm")
    assert "x0 <- x0 + H^T g (y - H x0)" in whole
    assert shown("DDRM", "--kind", "sampler") == whole


def test_components_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--json", "--plugins", str(folder)]) == 0
    facts = {(f["kind"], f["name"]): f for f in map(json.loads, capsys.readouterr().out.splitlines())}
    assert facts["sampler", "lazy"] == {
        "kind": "sampler",
        "name": "lazy",
        "class_path": "pscx_plugins.lazy.Lazy",
        "plugin": str(folder / "lazy.py"),
        "doc": "DDRM with a fixed number of steps.",
        "options": [{"name": "steps", "type": "an integer", "default": 2}],
    }
    assert facts["module", "evaluate"]["options"][0] == {"name": "codec", "type": "SignalCodec"}
    assert {kind for kind, _ in facts} == {registry.kind for registry in Registry.kinds.values()}


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["samplr"], "there is no component or kind 'samplr' (did you mean 'sampler'?)"),
        (["ddrn"], "there is no component or kind 'ddrn' (did you mean 'ddrm'?)"),
        (["pca", "--kind", "sampler"], "there is no component or kind 'pca'"),
        (["--kind", "sampling"], "unknown kind of component 'sampling' (did you mean 'sampler'?)"),
    ],
)
def test_components_that_are_not_there(args: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", *args]) == 2
    assert part in warnings_of(capsys)[0]
