"""The documentation: what its pages show is what is printed, and every public name is described."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import pscx
from pscx.catalogue.components import SECTIONS
from pscx.registry import Registry, parameters_of

PAGES = [page for page in (Path("README.md"), *sorted(Path("docs").glob("*.md"))) if "```console" in page.read_text()]
PLACES = ("*.md", "docs/*.md", "benchmarks/**/*.md", "plugins/**/*.md", "pscx/**/*.md")
LINKING = sorted(page for place in PLACES for page in Path().glob(place))
KINDS = [(f"{registry.kind} {name}", cls) for registry in SECTIONS.values() for name, cls in registry.classes.items()]
BASES = [(base.__name__, base) for base in Registry.kinds if base.__module__.startswith("pscx.")]
NAMES = [(name, getattr(pscx, name)) for name in pscx.__all__ if name != "__version__"]
THINGS = dict([*NAMES, *KINDS, *BASES])


@pytest.fixture(scope="module")
def shown() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shown", "docs/shown.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_printed(shown: ModuleType, page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "")  # both are changed, and put back afterwards
    monkeypatch.chdir(Path.cwd())
    text = shown.as_printed(page, folder)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_what_a_page_shows_is_what_is_printed(
    page: Path,
    shown: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget_plugins: Callable[[], None],
) -> None:
    """Where this fails after a change that was meant: ``python docs/shown.py --update PAGE``."""
    text = page.read_text()
    assert as_printed(shown, text, tmp_path, monkeypatch).splitlines() == text.splitlines()


def test_what_is_not_printed_is_seen(shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "```python\nx = 1\nassert x\n```\n\n```console\n$ pscx --version\n{}\n```\n"
    right, wrong = page.format(f"pscx {pscx.__version__}"), page.format("pscx 7")
    assert as_printed(shown, right, tmp_path / "a", monkeypatch) == right
    monkeypatch.undo()
    assert as_printed(shown, wrong, tmp_path / "b", monkeypatch) == right


@pytest.mark.parametrize("title", THINGS)
def test_every_public_name_is_described(title: str) -> None:
    """A docstring, and in it a line under ``Args:`` for each parameter of a class that is made by hand or config."""
    thing = THINGS[title]
    doc = inspect.cleandoc(thing.__doc__ or "")
    assert doc, f"{title} has no docstring"
    if not isinstance(thing, type) or inspect.isabstract(thing) or issubclass(thing, Exception):
        return
    if dataclasses.is_dataclass(thing):  # its fields are described in sentences
        return
    args = re.search(r"^Args:\n(.*?)(?:\n\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    described = re.findall(r"^    (\w+):", args[1] if args else "", re.MULTILINE)
    assert described == list(parameters_of(thing)), title


def test_every_public_method_is_described() -> None:
    """By itself, or by the method that it overrides, whose text the pages then show."""
    classes = [cls for _, cls in (*NAMES, *BASES) if isinstance(cls, type)]
    methods = [(cls, name, f) for cls in classes for name, f in vars(cls).items() if inspect.isfunction(f)]
    bare = [f"{cls.__name__}.{name}" for cls, name, f in methods if not name.startswith("_") and not inspect.getdoc(f)]
    assert not bare


def test_examples_in_docstrings_print_what_they_say() -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for info in pkgutil.walk_packages(pscx.__path__, "pscx."):
        module = importlib.import_module(info.name)
        for example in finder.find(module, info.name):
            runner.run(example)
    assert runner.tries > 10
    assert not runner.failures  # what failed is in the output


@pytest.mark.parametrize("page", LINKING, ids=str)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    """Files and headings; of addresses elsewhere, that they are whole and encrypted."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            assert re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", target), target
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        generated = {"components", "modules"} & set(Path(name).parts)  # made when the pages are built
        assert file.exists() or generated, f"{page}: {target}"
        if heading and file.suffix == ".md":
            assert heading in anchors(file), f"{page}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a Markdown page as GitHub and MyST name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    for target in ("gone.md", "#no-such-heading", "http://example.org/", "page.md#x"):
        page = tmp_path / "page.md"
        page.write_text(f"# A heading\n\n[text]({target})\n")
        with pytest.raises(AssertionError):
            test_links_inside_the_project_lead_somewhere(page)
    page.write_text("# A heading, `b`\n\n[text](#a-heading-b), [text](page.md), [text](https://example.org/a)\n")
    test_links_inside_the_project_lead_somewhere(page)


def test_the_tutorial_is_stored_without_outputs() -> None:
    cells = json.loads(Path("docs/tutorial.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
