"""What ``pscx cite`` prints: every component says what to cite, and a configuration gets the entries of its parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pscx
from pscx.catalogue.citations import FILE, OURS, bibliography, cited_by, entries
from pscx.catalogue.components import SECTIONS
from pscx.cli.main import main
from pscx.config import Layer, option_layer
from pscx.errors import PscxError
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.registry import Registry
from pscx.restorations import RESTORATIONS, Mean

CLASSES: dict[type[Any], str] = {cls: name for registry in SECTIONS.values() for name, cls in registry.classes.items()}


def keys(found: list[str]) -> list[str]:
    return [entry.partition("{")[2].partition(",")[0] for entry in found]


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    assert main(["cite", *args]) == 0, capsys.readouterr().err
    return keys(capsys.readouterr().out.split("\n\n"))


@pytest.mark.parametrize("cls", CLASSES, ids=CLASSES.values())
def test_every_component_says_what_to_cite(cls: type[Any]) -> None:
    """In its own body: ``()`` where there is nothing, rather than by forgetting."""
    assert "references" in vars(cls)
    assert len(cited_by(cls)) == len(cls.references)


def test_every_kind_is_covered() -> None:
    assert set(Registry.kinds.values()) == set(SECTIONS.values())


def test_every_entry_is_read_and_is_of_use() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert list(entries()) == re.findall(r"^@\w+\{(.*),$", text, re.MULTILINE)
    assert "\n\n".join(entries().values()) + "\n" == text
    classes: list[type[Any]] = [*CLASSES, ResidualUNet, NoiseExperts]
    used = {key for cls in classes for key in cls.references}
    assert used | {OURS} == set(entries())


def test_one_version_is_told_everywhere() -> None:
    """By BibTeX, by ``CITATION.cff`` and by the changelog's newest release."""
    assert f"version = {{{pscx.__version__}}}" in entries()[OURS]
    cff = yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))
    released = re.search(r"^## \[(\d.*)\] - (\S+)$", Path("CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released is not None
    assert (cff["version"], str(cff["date-released"])) == released.groups()
    assert cff["version"] == pscx.__version__


def test_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--recipe", "paper-pixel")
    codec = [key for key in found if not key.startswith("wang20")]  # those of the metrics of an evaluation
    assert codec == ["pscx", "elata2025psc", "ho2020ddpm", "kawar2022ddrm", "song2023pigdm"]
    assert [key for key in found if key not in codec] == ["wang2004ssim", "wang2003msssim"]
    assert printed(capsys) == printed(capsys, "--recipe", "default")
    assert "ahmed1974dct" in printed(capsys)


def test_an_option_changes_the_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert "chung2023dps" in printed(capsys, "--model.codec.sampler", "dps")
    assert "li2023blip2" in printed(capsys, "--model.caption", "blip2")


def test_nothing_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """The config names a pipeline that is nowhere on this machine."""
    found = printed(capsys, "--config", "configs/paper_latent.yaml", "--model.codec.prior.path", "nowhere/at/all")
    assert {"rombach2022ldm", "ho2022guidance", "lu2022dpmsolver"} <= set(found)


def test_training_cites_its_network(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--config", "configs/fit_ddpm.yaml")
    assert {"ho2020ddpm", "karras2022edm", "zhang2021drunet"} <= set(found)
    assert "elata2025psc" not in found


def test_an_ablation_cites_all_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        "model:\n"
        "  codec: {prior: gaussian, sampler: ddrm, rows: pca, quantizer: uniform, coder: raw, restoration: mean}\n"
        "axes: {model.codec.sampler: [ddrm, dps], model.codec.iterations: [1, 2]}\n"
        "rate: model.codec.iterations\n"
        "baseline: {model.codec.sampler: ddrm}\n"
    )
    assert {"kawar2022ddrm", "chung2023dps"} <= set(printed(capsys, "--config", str(file)))


def test_a_plugin_brings_its_own_entry(forget_plugins: Callable[[], None]) -> None:
    entry = "@misc{own,\n  title = {Mine}\n}"

    @RESTORATIONS.register("own")
    class Own(Mean):
        references = ("elata2025psc", entry)  # type: ignore[assignment]  # Mean has one

    found = bibliography([Layer("a", {"recipe": "default"}), option_layer("model.codec.restoration", "own")])
    assert found[-1] == entry
    assert keys(found).count("elata2025psc") == 1


def test_a_component_within_a_component_is_cited(
    forget_plugins: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "{name: checkerboard, inner: random}"
    assert "candes2006random" in printed(capsys, "--plugins", "plugins", "--model.codec.rows", rows)


def test_an_unknown_reference_is_named() -> None:
    class Wrong(Mean):
        references = ("nobody2025",)

    with pytest.raises(PscxError, match=r"Wrong: a reference must be a key of .*, got 'nobody2025'"):
        cited_by(Wrong)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--recipe", "nix"], "unknown recipe 'nix'"),
        (["--config", "nix.yaml"], "no such config file: 'nix.yaml'"),
        (["--model.codec.sampler", "drm"], "(did you mean 'ddrm'?)"),
        (["nix"], "cite has no option 'nix'"),
        (["--data.crop", "3"], "cite has no option '--data.crop'"),
    ],
)
def test_what_is_refused(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite", *args]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert not out
