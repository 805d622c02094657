"""Plugins: components from the files of a folder and from installed packages.

The files of all plugin folders are modules of the package ``pscx_plugins``, which exists only in memory. So each class
has an import path for saved configs, ``pscx_plugins.FILE.CLASS``. A plugin that fails to load is recorded in
:data:`FAILURES`; only configs that use its components fail.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pscx.config.contracts import check_contract, check_default
from pscx.errors import PscxError
from pscx.registry import NameTakenError, RegistrationError, Registry, origin, parameters_of

PACKAGE, GROUP, VARIABLE = "pscx_plugins", "pscx.plugins", "PSCX_PLUGINS"
CLAIM = re.compile(r"\.register\(\s*[\"'](\w+)[\"']|^class (\w+)", re.MULTILINE)
HOW = "name the folder of plugins with --plugins FOLDER, in PSCX_PLUGINS or to pscx.load_plugins"


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be loaded: where it is, its module, and why.

    ``claims`` are the names that it would have registered, found in its text; ``clash`` is the kind and name of a
    component that another plugin has already registered.
    """

    source: str
    module: str
    cause: str
    claims: frozenset[str] = frozenset()
    clash: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"plugin {self.source} failed to load: {self.cause}"


FAILURES: dict[str, Failure] = {}
"""What failed so far, by module."""


def load_plugins(*folders: str | Path) -> None:
    """Load the plugins of these folders, of ``PSCX_PLUGINS`` and of installed packages.

    Every file ``*.py`` whose name does not begin with ``_`` is imported, once. A plugin that fails gives a warning.
    Raises :class:`PscxError` if a folder does not exist.
    """
    for failure in load(folders):
        warnings.warn(str(failure), stacklevel=2)


def load(folders: Iterable[str | Path]) -> list[Failure]:
    """:func:`load_plugins`, returning what failed instead of warning of it."""
    fixed = [_folder(name, VARIABLE) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    named = [_folder(name, "--plugins") for name in folders]
    failures = [_load_entry(entry) for entry in entry_points(group=GROUP)]
    for folder in dict.fromkeys(fixed + named):
        failures += _load_folder(folder)
    return [failure for failure in failures if failure is not None]


def plugin_folders() -> list[str]:
    """The folders whose plugins were loaded so far, in order."""
    return list(_package().__path__)


def failure_of(registry: Registry[Any], name: str) -> Failure | None:
    """The plugin that did not load and would have provided the component ``name``, or none."""
    for failure in FAILURES.values():
        claimed = name in failure.claims and registry.find(name) is None
        if claimed or failure.clash == (registry.kind, name) or name.startswith(f"{failure.module}."):
            return failure
    return None


def shown(path: str | Path) -> str:
    """A path for messages: relative where it lies below the current folder."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _folder(name: str | Path, source: str) -> Path:
    if not Path(name).is_dir():
        what = "is a file: plugins are loaded by folder" if Path(name).exists() else "does not exist"
        raise PscxError(f"{source}: the plugin folder '{name}' {what}")
    return Path(name).resolve()


def _load_folder(folder: Path) -> list[Failure | None]:
    paths = _package().__path__
    if str(folder) not in paths:
        paths.append(str(folder))
    importlib.invalidate_caches()
    earlier = [Path(path) for path in paths[: paths.index(str(folder))]]
    return [_load_file(file, earlier) for file in sorted(folder.glob("*.py"))]


def _load_file(file: Path, earlier: Sequence[Path]) -> Failure | None:
    module, source = f"{PACKAGE}.{file.stem}", f"'{shown(file)}'"
    same = next((folder / file.name for folder in earlier if (folder / file.name).exists()), None)
    if same is not None:
        cause = f"its name is that of '{shown(same)}': rename one"
        return _set_aside(Failure(source, f"{module} in {file.parent}", cause))
    if file.stem.startswith("_"):
        return None
    if not file.stem.isidentifier():
        return _set_aside(Failure(source, module, "the file's name must be an identifier: letters, digits and _"))
    return _load(module, source, file, lambda: importlib.import_module(module))


def _load_entry(entry: EntryPoint) -> Failure | None:
    package = f" of {entry.dist.name}" if entry.dist else ""
    file = None
    with suppress(Exception):  # finding a module imports its package, which may be broken
        spec = importlib.util.find_spec(entry.module)
        file = Path(spec.origin) if spec is not None and spec.origin else None
    return _load(entry.module, f"'{entry.value}'{package}", file, entry.load, frozenset({entry.name}))


def _load(
    module: str, source: str, file: Path | None, run: Callable[[], object], claims: frozenset[str] = frozenset()
) -> Failure | None:
    """Import a plugin's module; if that fails, remove what it registered."""
    try:
        run()
        for registry, name, cls in _from(module):
            title = f"{registry.kind} '{name}'"
            _check_options(title, cls)
            check_contract(title, cls, registry.base)
    except (Exception, SystemExit) as error:
        for registry, name, _ in _from(module):
            del registry.classes[name]
        sys.modules.pop(module, None)
        if file is not None:
            with suppress(OSError):  # a folder, or a link to nothing, that is called like a file of Python
                claims |= {one or other for one, other in CLAIM.findall(file.read_text(errors="replace"))}
        theirs = isinstance(error, NameTakenError) and origin(error.taken) is not None
        clash = (error.kind, error.name) if isinstance(error, NameTakenError) and theirs else None
        return _set_aside(Failure(source, module, _cause(error, file), claims, clash))
    FAILURES.pop(module, None)
    return None


def _set_aside(failure: Failure) -> Failure:
    FAILURES[failure.module] = failure
    return failure


def _from(module: str) -> list[tuple[Registry[Any], str, type[Any]]]:
    """What a module has registered."""
    every = ((registry, *item) for registry in Registry.kinds.values() for item in registry.classes.items())
    return [entry for entry in every if entry[2].__module__ == module]


def _check_options(title: str, cls: type[Any]) -> None:
    """Refuse options that a config cannot set, and options without a type."""
    for name, option in parameters_of(cls).items():
        if option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD, option.POSITIONAL_ONLY):
            raise RegistrationError(f"{title}: a config cannot set the option '{option}': give each option a name")
        if inspect.signature(cls.__init__).parameters[name].annotation is inspect.Parameter.empty:
            raise RegistrationError(f"{title}: the option '{name}' needs a type hint")
        check_default(title, name, option)


def failed_in_plugin(error: BaseException) -> str | None:
    """A sentence about an exception that code of a plugin has raised, or none where no plugin was running.

    It names the file and the last of its lines that ran.
    """
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_plugin(str(frame.f_globals.get("__name__", "")))
    ]
    if not frames:
        return None
    file, line = frames[-1]
    return f"plugin '{shown(file)}' failed in line {line}: {type(error).__name__}: {' '.join(str(error).split())}"


def _is_plugin(module: str) -> bool:
    entries = (entry.module for entry in entry_points(group=GROUP))
    return any(module == own or module.startswith(f"{own}.") for own in (PACKAGE, *entries))


def _cause(error: BaseException, file: Path | None) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f"line {lines[-1]}: " if lines else ""
    what = "" if isinstance(error, PscxError) else f"{type(error).__name__}: "
    return f"{where}{what}{' '.join(str(error).split())}"


def _package() -> ModuleType:
    """The package of all plugin folders; it has no file of its own."""
    if PACKAGE not in sys.modules:
        spec = ModuleSpec(PACKAGE, None, is_package=True)
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    return sys.modules[PACKAGE]
