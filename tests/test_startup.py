"""What a command and the default codec load: little, and what is heavy only where it is used."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
from diffusers import DDPMScheduler
from jsonargparse import ArgumentError
from tiny import tiny_network

from pscx.cli.lightning_help import MODULES as MODULES_SHOWN
from pscx.cli.lightning_help import OF_COMMAND, RUN_OPTIONS
from pscx.cli.main import main
from pscx.codecs import CODECS
from pscx.config import STREAM_FAMILY
from pscx.config.values import is_plain, parser_of
from pscx.exact import FORMS, FRAMES
from pscx.format.info import _declared, stream_info
from pscx.priors.denoiser import PixelDenoiser
from pscx.quantizers import QUANTIZERS
from pscx.quantizers.base import Quantizer
from pscx.registry import Registry
from pscx.runs.lightning import _own_options
from pscx.runs.modules import MODULES
from pscx.runtime.quiet import importing

COMMANDS = (
    *("compress", "decompress", "info", "components", "ablate", "cite", "report", "compare", "demo"),
    *("test", "predict", "fit", "validate"),
)
LIGHT = {"pscx", "yaml", "cython_runtime", "rich", "pygments"}  # what printing text and reading recipes takes
UNUSED = {
    *("diffusers", "transformers", "huggingface_hub", "torchmetrics", "scipy", "matplotlib", "lightning", "pandas"),
    *("jsonargparse", "tensorboard", "sympy", "torch._dynamo"),
}
"""What the default codec does without; the last two are what torch loads for its compiler."""
STREAMS = ("tests/golden/recipes/default.pscx", "tests/golden/uniform_posterior.pscx")

COMMAND = """
import sys
from pscx.cli.main import main
code = main(sys.argv[1:])
loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print("LOADED", code, *(name for name in loaded if name[0] != "_"))
"""
CODEC = """
import sys
import numpy as np
import torch
before = set(sys.modules)
import pscx
codec = pscx.load_codec("default", iterations=2, sampler={"steps": 1}, restoration_sampler={"steps": 1})
image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
for options in ({}, {"quality": 20}, {"psnr": 12}):
    data = codec.compress(image, **options)
assert pscx.Decompressor().decompress(data).shape == (16, 16, 3)
print("LOADED 0", *(set(sys.modules) - before))
"""


def loaded(code: str, *args: str) -> set[str]:
    """Modules that a process has loaded at the end of some code, as that prints them."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[:2] == ["LOADED", "0"]
    return set(last[2:])


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    assert loaded(COMMAND, *args) <= LIGHT


def test_help_is_asked_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    from pscx.cli.main import LIGHTNING, _parsers

    assert set(COMMANDS) == _parsers()[1].keys()
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"usage: pscx {command} " in out
        if command in LIGHTNING:
            assert all(f"{option} " in out for option in ("--device", "--plugins", "--recipes", "--config"))


def test_help_loads_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are code of others, and most of them import torch."""
    (tmp_path / "heavy.py").write_text("import torch\n")
    monkeypatch.setenv("PSCX_PLUGINS", str(tmp_path))
    for command in ("compress", "test"):
        assert loaded(COMMAND, command, "--plugins", str(tmp_path), "--help") <= LIGHT


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("stream", STREAMS)
def test_info_loads_nothing_heavy(stream: str, options: list[str]) -> None:
    assert loaded(COMMAND, "info", stream, *options) <= LIGHT


def test_the_default_codec_loads_what_it_uses() -> None:
    """To load it, compress, with a search for a PSNR too, and decompress."""
    found = loaded(CODEC)
    assert {"pscx.api", "safetensors"} <= found
    assert not found & UNUSED


# What is said without loading what it is about


def test_help_names_the_options_that_commands_take() -> None:
    assert {command: list(options) for command, options in OF_COMMAND.items()} == {
        command: _own_options(command) for command in OF_COMMAND
    }
    assert RUN_OPTIONS.keys() == {name for options in OF_COMMAND.values() for name in options}
    words = {word.strip("(),") for text in MODULES_SHOWN.values() for word in text.split()}
    assert words - {"or", "default"} == MODULES.classes.keys()


def test_all_options_of_the_trainer_can_be_listed() -> None:
    """In a process of its own: it lists subclasses, and those of plugins of other tests may still be there."""
    command = [sys.executable, "-m", "pscx.cli.main", "test", "--trainer.help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--trainer.limit_predict_batches" in done.stdout


@pytest.mark.parametrize(
    ("registry", "folder", "attribute", "expected"),
    [
        (QUANTIZERS, "quantizers", "parameter_name", {"step", "parameter"}),
        (CODECS, "codecs", "turned", {"level"}),
    ],
    ids=["quantizers", "families"],
)
def test_info_reads_parameters_from_the_files_of_components(
    registry: Registry[Any], folder: str, attribute: str, expected: set[str]
) -> None:
    own = {name: cls for name, cls in registry.classes.items() if cls.__module__.startswith("pscx.")}
    own.pop(STREAM_FAMILY, None)  # its quantizer is asked
    found = {name: _declared(folder, name, attribute) for name in own}
    assert found == {name: getattr(cls, attribute) for name, cls in own.items()}
    assert set(found.values()) == expected


@pytest.mark.parametrize("name", ["base", "../quantizers/uniform", "../codecs/ddcm", "no_such_component", "a" * 500])
def test_info_reads_no_other_file(name: str) -> None:
    assert _declared("quantizers", name, "parameter_name") == "parameter"
    assert _declared("codecs", name, "turned") == "parameter"


def test_info_knows_the_parameter_of_a_quantizer_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Quantizer):
        parameter_name = "width"

    monkeypatch.setitem(QUANTIZERS.classes, "uniform", Other)
    assert stream_info(Path(STREAMS[1]).read_bytes())["parameter_name"] == "width"


# Libraries that are loaded late


def test_a_late_library_is_as_quiet_as_an_early_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers and transformers set the level of their messages when they are imported."""
    (tmp_path / "talkative.py").write_text("import logging\nlogging.getLogger('diffusers').setLevel(logging.INFO)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    logger = logging.getLogger("diffusers")
    before = logger.level
    try:
        for level, expected in ((logging.NOTSET, logging.INFO), (logging.CRITICAL, logging.CRITICAL)):
            monkeypatch.delitem(sys.modules, "talkative", raising=False)
            logger.setLevel(level)
            with importing():
                import_module("talkative")
            assert logger.level == expected
    finally:
        logger.setLevel(before)


def test_a_network_of_diffusers_is_loaded_quietly(tmp_path: Path) -> None:
    """In a process of its own, where nothing has imported diffusers before."""
    folder = str(tmp_path / "prior")
    PixelDenoiser(tiny_network(), DDPMScheduler()).save(tmp_path / "prior")
    code = (
        "import logging, sys\nfrom pscx.priors import DDPM\nfrom pscx.runtime.quiet import LOGGERS, quiet\n"
        "assert 'diffusers' not in sys.modules\n"
        f"with quiet():\n    DDPM({folder!r})\n    assert 'diffusers' in sys.modules\n"
        "    assert {name: logging.getLogger(name).level for name in LOGGERS} == LOGGERS\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_form_of_ones_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of diffusers' layers are added when one is met, which may be after a plugin's."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import TimestepEmbedding

    from pscx.exact.diffusers_layers import register

    def form(layer: Any, precision: Any) -> Any:
        return layer

    def check(module: Any) -> None:
        pass

    monkeypatch.setitem(FORMS, Attention, form)
    monkeypatch.setitem(FRAMES, TimestepEmbedding, check)
    register()
    assert FORMS[Attention] is form
    assert FRAMES[TimestepEmbedding] is check


# Plain values, which jsonargparse is not asked about

VALUES: tuple[Any, ...] = (
    *(True, False, None, 0, 1, -3, 2.5, 0.0, float("inf"), "ddrm", "log", "null", "true", "yes", "1", "1e3", "a b", ""),
    *("~", "on", "x1", [], [1], [1.0, 2], [0.5, 1.0], ["a", "b"], [None], {"a": 1}, {}),
)
HINTS: tuple[Any, ...] = (
    *(bool, int, float, str, None, int | None, float | None, str | None, int | float, float | int, bool | int),
    *(str | list[str], list[int], list[float], list[float] | None, list[str], Literal["linear", "log"]),
    *(Literal["log"] | None, Literal[1, 2], Literal["ddrm", 1] | float, str | int, tuple[float, float], Any),
)


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_plain_values_are_what_jsonargparse_makes_of_them(hint: Any) -> None:
    for value in VALUES:
        if is_plain(hint, value):
            try:
                found = parser_of(hint).parse_object({"value": value}).as_dict()["value"]
            except ArgumentError:
                pytest.fail(f"{value!r} is refused")
            assert (found, type(found)) == (value, type(value))
            if isinstance(value, list):
                assert [type(item) for item in found] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        *((int, 5), (float, 0.5), (bool, True), (str, "ddrm"), (int | None, None), (Literal["log"], "log")),
        *((list[float], [0.5]), (list[float] | None, [])),
    ],
)
def test_common_values_are_plain(hint: Any, value: Any) -> None:
    assert is_plain(hint, value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        *((int, True), (float, 1), (int, 1.0), (str, "null"), (str, 5), (float | int, 1), (Any, 1), (Literal[1], True)),
        *((list[float], [1]), (list[float], (0.5,)), (bool, 1), (int, None)),
    ],
)
def test_values_of_another_type_are_not_plain(hint: Any, value: Any) -> None:
    assert not is_plain(hint, value)
