"""The documentation: ``sphinx-build -W --keep-going docs build/docs``. Nothing is fetched, at build or at view time."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import pscx
from pscx.catalogue.citations import FILE
from pscx.catalogue.components import SECTIONS
from pscx.registry import class_path, parameters_of

project, author, release = "pscx", "The pscx developers", pscx.__version__
copyright = author
extensions = [
    "myst_nb",  # Markdown, and the tutorial, which is run
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
]
html_theme = "furo"
html_title = "pscx"
html_copy_source = False
html_math_renderer = "mathml"  # below: browsers show it by themselves
nitpicky = True  # a reference without a target is a warning
nitpick_ignore_regex = [
    ("py:.*", r"(?!pscx\.).*|.*\.([A-Z](_co)?|Self|Numbers)")
]  # of other packages: their inventories are on the net
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # those of Lightning are not ours
autodoc_default_options = {"members": True, "show-inheritance": True}
bibtex_bibfiles = [str(FILE), "related.bib"]
bibtex_default_style = "unsrt"

HERE = Path(__file__).parent
COMPONENTS, MODULES = HERE / "components", HERE / "modules"


def write_pages(app: Sphinx) -> None:
    """A page for each registered component and for each module or subpackage of pscx, from their docstrings."""
    _write_components()
    _write_modules()


def _write_modules() -> None:
    """A package has what it exports; its modules have the rest of what is public in them."""
    names = ["pscx", *(module.name for module in pkgutil.walk_packages(pscx.__path__, "pscx."))]
    modules = {name: import_module(name) for name in names}
    exported = {name: set(getattr(module, "__all__", ())) for name, module in modules.items()}
    names = [name for name in names if name.rpartition(".")[2] not in exported[_parent(name)]]  # shadowed by a function
    for name in names:
        above = exported["pscx"] | exported[_parent(name)]
        hidden = [] if name == "pscx" else [f"   :exclude-members: {', '.join(sorted(above))}"]
        _write(MODULES / f"{name}.rst", [*_heading(name), f".. automodule:: {name}", *hidden])
    lines = ["What a package exports is described there, whatever file it is in.", "", ".. toctree::", ""]
    _write(MODULES / "index.rst", [*_heading("Modules"), *lines, *(f"   {name}" for name in names)])


def _parent(name: str) -> str:
    return name.rpartition(".")[0] or name


def _write_components() -> None:
    kinds = {registry.kind: registry for registry in SECTIONS.values()}
    lines = [*_heading("Components"), "What ``pscx components`` lists; a config names them.", ""]
    for kind, registry in kinds.items():
        names = [f"{kind.replace(' ', '_')}-{name}" for name in sorted(registry.classes)]
        lines += [".. toctree::", "   :maxdepth: 1", f"   :caption: {kind}", "", *(f"   {name}" for name in names), ""]
        for page, (name, cls) in zip(names, sorted(registry.classes.items()), strict=True):
            _write(COMPONENTS / f"{page}.rst", _component_page(kind, name, cls))
    _write(COMPONENTS / "index.rst", lines)


def _component_page(kind: str, name: str, cls: type[Any]) -> list[str]:
    signature = "" if parameters_of(cls) else "()"  # else autodoc shows a base class's
    directive = f".. autoclass:: {class_path(cls)}{signature}"
    lines = [*_heading(f"{kind}: {name}"), directive, "   :no-index:", "   :no-members:", ""]
    if cls.references:
        cited = ", ".join(f":footcite:t:`{key}`" for key in cls.references)
        lines += [f"Sources: {cited}", "", ".. footbibliography::", ""]
    return lines


def _heading(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def _write(file: Path, lines: list[str]) -> None:
    """Leaves a file that is the same as it is, so that Sphinx need not read it again."""
    text = "\n".join(lines)
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def show_math(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Math as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
