"""What a plugin returns, takes and raises: a mistake is one sentence that names it, and makes no stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import write_codec

from pscx import PscxError
from pscx.cli.main import main
from pscx.config.contracts import check_contract
from pscx.config.plugins import load
from pscx.registry import Registry
from pscx.runtime.returned import number, returned
from pscx.samplers import DDRM

HEAD = """\
import torch
from pscx.captioners import CAPTIONERS, Captioner
from pscx.metrics import METRICS, ImageMetric
from pscx.quantizers import QUANTIZERS, Uniform
from pscx.restorations import RESTORATIONS, Restoration
from pscx.rows import ROWS, Local
from pscx.samplers import SAMPLERS, Sampler

"""
SAMPLER = (
    HEAD
    + """
@SAMPLERS.register("mine")
class Mine(Sampler):
    def sample(self, problem, indices):
        draws = problem.prior.denoise(problem.draw(indices, 0), 1.0)
        return {}
"""
)
ROW_RULE = (
    HEAD
    + """
@ROWS.register("mine")
class Mine(Local):
    def propose(self, situation):
        found = super().propose(situation)
        return {}
"""
)
QUANTIZER = (
    HEAD
    + """
@QUANTIZERS.register("mine")
class Mine(Uniform):
    def quantize(self, value, mean, scale):
        return {}
"""
)
RESTORATION = (
    HEAD
    + """
@RESTORATIONS.register("mine")
class Mine(Restoration):
    def restore(self, draw, index):
        return {}
"""
)


METRIC = (
    HEAD
    + """
@METRICS.register("mine")
class Mine(ImageMetric):
    title, higher_is_better = "Mine", True
    def measure(self, original, other):
        return {}
"""
)


@pytest.fixture
def photo(image_folder: Path) -> str:
    return str(image_folder / "a.png")


def plugin(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text)
    return folder / "mine.py"


@pytest.mark.parametrize(
    ("key", "text", "part"),
    [
        ("sampler", SAMPLER.format("draws[:1]"), "on cpu from sample, got a tensor (1, 3, "),
        ("sampler", SAMPLER.format("draws[:1, :1]"), "on cpu from sample, got a tensor (1, 1, "),
        ("sampler", SAMPLER.format("draws[0]"), "on cpu from sample, got a tensor (3, "),
        ("sampler", SAMPLER.format("draws.float()"), "), float32, on cpu\n"),
        ("sampler", SAMPLER.format("draws.to('meta')"), "), float64, on meta\n"),
        ("sampler", SAMPLER.format("draws.to_sparse()"), "on cpu with the layout torch.sparse_coo\n"),
        ("sampler", SAMPLER.format("None"), "on cpu from sample, got 'NoneType'\n"),
        ("rows", ROW_RULE.format("None"), "row rule 'mine' ('{}') must return a Proposal from propose, got 'NoneType'"),
        ("rows", ROW_RULE.format("type(found)(found.block.int(), found.rows, found.variance, found.groups)"), "int32"),
        ("rows", ROW_RULE.format("type(found)(found.block, found.rows, found.variance[1:], found.groups)"), "variance"),
        ("rows", ROW_RULE.format("type(found)(found.block, found.rows[1:], found.variance, found.groups)"), "as many"),
        ("rows", ROW_RULE.format("type(found)(found.block, found.rows, found.variance, [1])"), "groups that add up to"),
        ("quantizer", QUANTIZER.format("mean"), "int64, on cpu from quantize, got a tensor ("),
        ("quantizer", QUANTIZER.format("torch.full_like(mean, -1).long()"), "must return symbols in 0.."),
        ("restoration", RESTORATION.format("next(draw(range(1)))"), "on cpu from restore, got a tensor (1, 3, "),
    ],
)
def test_what_a_plugin_returns_is_checked(
    key: str,
    text: str,
    part: str,
    photo: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    forget_plugins: Callable[[], None],
) -> None:
    file = plugin(tmp_path / "mine", text)
    options = ["--config", write_codec(tmp_path), "--plugins", str(file.parent), f"--model.codec.{key}", "mine"]
    if key == "restoration":
        args = ["test", "--data.root", photo, "--trainer.default_root_dir", str(tmp_path / "run"), *options]
    else:
        args = ["compress", photo, "-o", str(tmp_path / "x.pscx"), *options]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f" 'mine' ('{file}') must return " in error
    assert part.format(file) in error
    assert not (tmp_path / "x.pscx").exists()


def test_a_metric_that_returns_no_number_is_told(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], forget_plugins: Callable[[], None]
) -> None:
    file = plugin(tmp_path / "mine", METRIC.format("None"))
    where = ["--data.root", photo, "--trainer.default_root_dir", str(tmp_path / "run")]
    options = ["--config", write_codec(tmp_path), "--plugins", str(file.parent), "--model.metrics", "[mine]"]
    assert main(["test", *where, *options]) == 2
    assert f"metric 'mine' ('{file}') must return a number from measure, got 'NoneType'" in capsys.readouterr().err


def test_an_error_inside_a_plugin_names_its_line(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], forget_plugins: Callable[[], None]
) -> None:
    file = plugin(tmp_path / "mine", SAMPLER.format("draws @ torch.zeros(3, 3)"))
    assert (
        main(
            [
                "compress",
                photo,
                "--config",
                write_codec(tmp_path),
                "--plugins",
                str(file.parent),
                "--model.codec.sampler",
                "mine",
            ]
        )
        == 2
    )
    line = SAMPLER[: SAMPLER.index("return")].count("\n") + 1
    error = capsys.readouterr().err
    assert error.startswith(f"pscx: plugin '{file}' failed in line {line}: RuntimeError: ")
    assert error.count("\n") == 1


BROKEN = {
    "too few": (
        "def sample(self, problem): ...",
        "the method sample must take (problem, indices), but it takes (problem)",
    ),
    "too many": ("def sample(self, problem, indices, more): ...", "but it takes (problem, indices, more)"),
    "attribute": ("evaluations = 'x'\n    def sample(self, p, i): ...", "evaluations must be an integer, got 'x'"),
    "flag": ("exact = 1\n    def sample(self, p, i): ...", "exact must be true or false, got 1"),
    "default": (
        "def __init__(self, n: int = 'three'): ...\n    def sample(self, p, i): ...",
        "the default of the option 'n' must be an integer, got 'three'",
    ),
    "null": (
        "def __init__(self, n: float | None = True): ...\n    def sample(self, p, i): ...",
        "the default of the option 'n' must be a number or null, got True",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_class_that_breaks_the_contract_is_set_aside(
    case: str, tmp_path: Path, forget_plugins: Callable[[], None]
) -> None:
    body, cause = BROKEN[case]
    text = f'{HEAD}\n@SAMPLERS.register("mine")\nclass Mine(Sampler):\n    {body}\n'
    (failure,) = load([plugin(tmp_path / "mine", text).parent])
    assert failure.cause.startswith("sampler 'mine': ")
    assert cause in failure.cause


def test_other_names_and_more_options_are_allowed(tmp_path: Path, forget_plugins: Callable[[], None]) -> None:
    text = f'{HEAD}\n@SAMPLERS.register("mine")\nclass Mine(Sampler):\n    def __init__(self, n: float = 1): ...\n'
    assert load([plugin(tmp_path / "mine", f"{text}    def sample(self, p, i, more=3, **rest): ...\n").parent]) == []


def test_what_ships_with_pscx_keeps_its_contracts() -> None:
    for registry in Registry.kinds.values():
        for name, cls in registry.classes.items():
            check_contract(name, cls, registry.base)


def test_values_as_components_return_them() -> None:
    sampler, tensor = DDRM(), torch.zeros(2, 3, dtype=torch.float64)
    assert returned(sampler, "sample", tensor, (2, 3)) is tensor
    assert returned(sampler, "sample", tensor.half(), (2, 3), dtype=None).dtype == torch.float16
    for value in (tensor.long(), tensor.float(), tensor[0], [0.0], None):
        with pytest.raises(PscxError, match=r"^sampler 'ddrm' must return a tensor \(2, 3\), float64, on cpu from sam"):
            returned(sampler, "sample", value, (2, 3))
    assert number(sampler, "measure", tensor[0, 0]) == 0
    assert number(sampler, "measure", float("inf")) == float("inf")
    for wrong in (None, "x", tensor):
        with pytest.raises(PscxError, match="must return a number from measure, got "):
            number(sampler, "measure", wrong)
