"""From an ablation file to the cells of its grid, every one of them checked before any is run."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from pscx.config import (
    SECTIONS,
    Checker,
    ConfigError,
    Layer,
    build,
    built,
    class_of,
    option_layer,
    read_yaml,
    with_defaults,
)
from pscx.evaluation import Evaluate
from pscx.registry import choices
from pscx.runs.accelerators import names_accelerator
from pscx.runs.lightning import configuration, own_root

KEYS = ("base", "axes", "rate", "baseline", "exclude")
OTHERS = ("recipe", "seed_everything", "verbose")
ACCELERATOR = "trainer.accelerator"
ID_DIGITS = 12
MOST_CELLS = 10_000  # of a grid, before any is excluded; all are checked before one is run


@dataclass(frozen=True)
class Axis:
    """What is varied: ``key`` is a dotted key such as ``model.codec.sampler``, ``values`` its values by label."""

    key: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The key as tables and plots show it."""
        return short(self.key)


@dataclass(frozen=True)
class Cell:
    """One combination: a label an axis, and the whole configuration of a ``pscx test``.

    ``id`` is a digest of that configuration, defaults included, the folder of the results and the metrics left out, and
    of the prior's weights. It says nothing of what the images are, only where.
    """

    id: str
    labels: Mapping[str, str]
    tree: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.tree["trainer"]["default_root_dir"])

    @property
    def name(self) -> str:
        """The label on each axis, in words."""
        return in_words(self.labels)


@dataclass(frozen=True)
class Plan:
    """A grid: the cells that share all labels but that of the axis ``rate`` are the points of one curve.

    ``names_accelerator`` says whether a file, an option or an axis says where cells compute.
    """

    axes: Sequence[Axis]
    rate: str
    baseline: Mapping[str, str]
    cells: Sequence[Cell]
    root: Path
    names_accelerator: bool = False

    @property
    def curve_axes(self) -> list[Axis]:
        """All axes but that of the rate."""
        return [axis for axis in self.axes if axis.key != self.rate]


def short(key: str) -> str:
    """A key without the section that most axes are of."""
    return key.removeprefix("model.").removeprefix("codec.")


def in_words(labels: Mapping[str, str]) -> str:
    """``sampler=ddrm, quantizer.step=0.3``."""
    return ", ".join(f"{short(key)}={label}" for key, label in labels.items())


def read_plan(layers: Sequence[Layer]) -> Plan:
    """The grid that ``layers`` describe. Raises :class:`ConfigError` for anything that is not right in any cell."""
    return _Reader(layers).plan()


class _Reader:
    def __init__(self, layers: Sequence[Layer]) -> None:
        self.checker = Checker(layers)
        self.own = {key: layer.values[key] for layer in layers for key in KEYS if key in layer.values}
        self.layers = [part for layer in layers for part in _without_grid(layer)]

    def plan(self) -> Plan:
        self._check_keys()
        axes = [self._axis(key, values) for key, values in self._mapping("axes").items()]
        if not axes:
            self._fail("axes", "must hold at least one axis, such as model.codec.sampler: [ddrm]")
        rate = self._rate(axes)
        cells = prod(len(axis.values) for axis in axes)
        if cells > MOST_CELLS:
            sizes = " x ".join(str(len(axis.values)) for axis in axes)
            self._fail("axes", f"must make at most {MOST_CELLS} cells, got {sizes} = {cells}")
        excluded = self._exclusions(axes)
        combinations = [labels for labels in _product(axes) if not any(_matches(labels, entry) for entry in excluded)]
        if not combinations:
            self._fail("exclude", "must leave at least one cell")
        trees = [self._tree(labels, axes) for labels in combinations]
        baseline = self._baseline([axis for axis in axes if axis.key != rate], combinations)
        root = own_root(trees[0])
        builder = _Builder()
        planned = [self._cell(labels, tree, root, builder) for labels, tree in zip(combinations, trees, strict=True)]
        self._check_different(planned)
        named = names_accelerator(self.layers) or any(axis.key == ACCELERATOR for axis in axes)
        return Plan(axes, rate, baseline, planned, root, named)

    def _check_different(self, cells: Sequence[Cell]) -> None:
        """Refuse two cells of one configuration, such as of the values 1 and 1.0: they would share a folder."""
        first: dict[str, Cell] = {}
        for cell in cells:
            other = first.setdefault(cell.id, cell)
            if other is not cell:
                self._fail("axes", f"the cells {other.name} and {cell.name} are the same: leave one of them out")

    def _check_keys(self) -> None:
        known = [*KEYS, *SECTIONS, *OTHERS]
        for key in (key for layer in self.layers for key in layer.values):
            if key not in known:
                self._fail(key, f"there is no such section or option{choices(key, known)}")
        if "axes" not in self.own:
            raise ConfigError("ablate needs a config file with axes, such as configs/ablations/components.yaml")

    def _axis(self, key: str, values: Any) -> Axis:
        path = f"axes.{key}"
        section, _, option = key.partition(".")
        if section not in SECTIONS or not option:
            self._fail(path, f"an axis is an option of model, data or trainer{choices(section, SECTIONS)}")
        if key == "trainer.default_root_dir":
            self._fail(path, "cannot be an axis: each cell has a folder of its own")
        if key.startswith("model.metrics"):
            self._fail(path, "cannot be an axis: give all cells all metrics, which compare codecs")
        if any(layer.source == f"--{key}" for layer in self.layers):
            raise ConfigError(f"option --{key} is an axis of this ablation: change its values in the config file")
        if not isinstance(values, list) or not values:
            self._fail(path, "must be a list of values")
        labels = labels_of(values)
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            way_out = "leave one out, or give each {label: ..., value: ...}"
            self._fail(path, f"two values are called '{twice[0]}': {way_out}")
        return Axis(key, dict(zip(labels, map(_value, values), strict=True)))

    def _rate(self, axes: Sequence[Axis]) -> str:
        keys = [axis.key for axis in axes]
        rate = self.own.get("rate")
        if rate not in keys:
            self._fail("rate", f"must name the axis whose values are the points of a curve{choices(str(rate), keys)}")
        return str(rate)

    def _baseline(self, axes: Sequence[Axis], combinations: Sequence[Mapping[str, str]]) -> dict[str, str]:
        given = self._labelled("baseline", self._mapping("baseline"), axes)
        single = {axis.key: list(axis.values) for axis in axes if len(axis.values) == 1}
        chosen = {key: labels[0] for key, labels in {**single, **given}.items() if len(labels) == 1}
        for axis in axes:
            if axis.key not in chosen:
                self._fail("baseline", f"must give one label for the axis {axis.key}{choices('', axis.values)}")
        baseline = {axis.key: chosen[axis.key] for axis in axes}
        if not any(baseline.items() <= labels.items() for labels in combinations):
            self._fail("baseline", f"is no cell: {in_words(baseline)} is excluded")
        return baseline

    def _exclusions(self, axes: Sequence[Axis]) -> list[dict[str, list[str]]]:
        entries = self.own.get("exclude") or []
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) and entry for entry in entries):
            example = "- {model.codec.quantizer: float8, model.codec.coder: raw}"
            self._fail("exclude", f"must be a list of combinations, such as {example}")
        return [self._labelled("exclude", entry, axes) for entry in entries]

    def _labelled(self, path: str, entry: Mapping[str, Any], axes: Sequence[Axis]) -> dict[str, list[str]]:
        """Lists of labels by axis, each known."""
        by_key = {axis.key: axis for axis in axes}
        labelled = {}
        for key, value in entry.items():
            if key not in by_key:
                self._fail(path, f"there is no axis '{key}'{choices(key, by_key)}")
            labelled[key] = [_label(item) for item in (value if isinstance(value, list) else [value])]
            for label in labelled[key]:
                if label not in by_key[key].values:
                    known = choices(label, by_key[key].values)
                    self._fail(path, f"the axis {key} has no value '{label}'{known}")
        return labelled

    def _tree(self, labels: Mapping[str, str], axes: Sequence[Axis]) -> dict[str, Any]:
        """The configuration of a combination: an option of a component goes over the component."""
        source = next(layer.source for layer in reversed(self.checker.layers) if "axes" in layer.values)
        deep_last = sorted(axes, key=lambda axis: axis.key.count("."))
        own = [Layer(source, option_layer(axis.key, axis.values[labels[axis.key]]).values) for axis in deep_last]
        try:
            return _on_one_device(configuration("test", [*self.layers, *own]))
        except ConfigError as error:
            raise ConfigError(f"{error}{_where(labels)}") from error

    def _cell(self, labels: Mapping[str, str], tree: dict[str, Any], root: Path, builder: _Builder) -> Cell:
        try:
            fingerprint = builder.check(tree)
        except ConfigError as error:
            raise ConfigError(f"{error}{_where(labels)}") from error
        trainer = {key: value for key, value in tree["trainer"].items() if key != "default_root_dir"}
        facts = {**with_defaults({**tree, "trainer": trainer}), "prior": fingerprint.hex()}
        facts["model"]["init_args"].pop("metrics", None)  # a finished cell is measured anew, not coded
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:ID_DIGITS]
        return Cell(digest, labels, {**tree, "trainer": {**trainer, "default_root_dir": str(root / "cells" / digest)}})

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self.own.get(key) or {}
        if not isinstance(value, Mapping):
            self._fail(key, "must be a mapping whose keys are axes, such as model.codec.sampler")
        return value

    def _fail(self, path: str, reason: str) -> NoReturn:
        self.checker.fail(path, reason)


class _Builder:
    """Builds what a cell consists of, for the errors of constructors; equal priors and data once."""

    def __init__(self) -> None:
        self.priors: dict[str, Any] = {}
        self.data: set[str] = set()

    def check(self, tree: Mapping[str, Any]) -> bytes:
        """The fingerprint of the cell's prior. Raises :class:`ConfigError`, or what reading the folder raises."""
        cls = class_of(tree["model"])
        if not issubclass(cls, Evaluate):
            raise ConfigError(f"ablate evaluates codecs: model must be 'evaluate', got '{cls.__name__}'")
        options = dict(tree["model"]["init_args"])
        codec = self._codec(options["codec"])
        build(cls, {**options, "codec": codec})
        key = json.dumps(tree["data"], default=str)
        if key not in self.data:
            built(tree["data"]).setup("test")
            self.data.add(key)
        fingerprint: bytes = codec.fingerprint()
        return fingerprint

    def _codec(self, form: Mapping[str, Any]) -> Any:
        options = dict(form["init_args"])
        prior = options.get("prior")
        if isinstance(prior, Mapping):
            key = json.dumps(prior, default=str)
            if key not in self.priors:
                self.priors[key] = built(prior)
            options["prior"] = self.priors[key]
        return build(class_of(form), options)


def _without_grid(layer: Layer) -> list[Layer]:
    """The layers of a configuration for ``pscx test``: what the file's ``base`` holds, then its own sections."""
    own = Layer(layer.source, {key: value for key, value in layer.values.items() if key not in KEYS})
    base = layer.values.get("base")
    if base is None:
        return [own]
    if not isinstance(base, str):
        raise ConfigError(f"{layer.source}: base must be the name of a config file, got {base!r}")
    return [read_yaml(Path(layer.source).parent / base), own]


def _on_one_device(tree: dict[str, Any]) -> dict[str, Any]:
    """Cells are what is spread over devices, not the images of a cell."""
    trainer = {"devices": 1, **tree["trainer"]}
    for key in ("devices", "num_nodes"):
        if trainer.get(key, 1) not in (1, "1"):
            raise ConfigError(f"trainer.{key} must be 1 in an ablation: each cell runs on one device")
    return {**tree, "trainer": trainer}


def _product(axes: Sequence[Axis]) -> list[dict[str, str]]:
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, labels, strict=True)) for labels in itertools.product(*(axis.values for axis in axes))]


def _matches(labels: Mapping[str, str], entry: Mapping[str, Sequence[str]]) -> bool:
    return all(labels[key] in allowed for key, allowed in entry.items())


def _where(labels: Mapping[str, str]) -> str:
    return f" (cell {in_words(labels)}; exclude leaves combinations out)"


def _value(item: Any) -> Any:
    return item["value"] if _is_labelled(item) else item


def _is_labelled(item: Any) -> bool:
    return isinstance(item, Mapping) and set(item) == {"label", "value"}


def labels_of(values: Sequence[Any]) -> list[str]:
    """What the values of an axis are called: their label, or a component's name, with options where names repeat."""
    short = [_label(item) for item in values]
    return [_long_label(item) if short.count(label) > 1 else label for item, label in zip(values, short, strict=True)]


def _label(item: Any) -> str:
    if _is_labelled(item):
        return str(item["label"])
    if isinstance(item, Mapping) and "name" in item:
        return str(item["name"])
    return item if isinstance(item, str) else json.dumps(item, default=str)


def _long_label(item: Any) -> str:
    if _is_labelled(item) or not isinstance(item, Mapping):
        return _label(item)
    options = ", ".join(f"{key}={_label(value)}" for key, value in item.items() if key != "name")
    return f"{_label(item)} ({options})" if options else _label(item)
