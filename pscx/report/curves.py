"""Groups runs into curves, names the curves and compares them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Any

from pscx.ablation.plan import in_words
from pscx.ablation.results import Curve as Points
from pscx.ablation.results import Results, compared, measures
from pscx.codecs import CODECS
from pscx.config.kinds import kind_in
from pscx.config.plugins import HOW
from pscx.errors import PscxError
from pscx.registry import parameters_of, registered, registry_of
from pscx.report.runs import Run, Source

MEAN = "mean over the images"
LONGEST_NAME = 3  # differences that a name may list
EXECUTION = (
    "model.simulate",
    "model.ranks_per_image",
    "model.metrics",
    "model.logged_pictures",
    "model.codec.batch",
    "data.num_workers",
    "data.batch_size",
)
"""Options of how a run is computed, on which what comes of it does not depend."""


@dataclass(frozen=True)
class RunCurve:
    """Runs that differ only in the requested quality, by rising rate, and their difference from the other curves.

    ``axes`` are those of an ablation on which the curve is not its baseline's; none for other curves.
    """

    name: str
    runs: Sequence[Run]
    axes: Sequence[str] = ()


@dataclass(frozen=True)
class View:
    """Data of one chart: the means over the images, or one image.

    ``points`` by measure and curve are ``(bpp, quality, run)``; ``bd`` by measure and curve is the BD-rate against the
    first curve in percent, or none, and over which qualities, or why there is none
    (:func:`pscx.evaluation.bd.bd_rate`).
    """

    title: str
    points: Mapping[str, Sequence[Sequence[tuple[float, float, str]]]]
    bd: Mapping[str, Sequence[tuple[float | None, str]]]


def curves_of(sources: Sequence[Source]) -> list[RunCurve]:
    """The curves of all sources; the others are compared with the first.

    The cells of an ablation form the curves of its file, its baseline first. Evaluations form one curve if they differ
    only in the parameter of rate control or in the value of the target. The run of a cell is called by its curve and
    the value that its rate is set by.
    """
    groups: dict[str, tuple[Source, list[Run]]] = {}
    for number, source in enumerate(sources):
        for run in source.runs:
            groups.setdefault(_key(source, number, run), (source, []))[1].append(run)
    found = [(source, sorted(runs, key=lambda run: run.mean("bpp") or 0.0)) for source, runs in groups.values()]
    first = [source for source, _ in found]
    found.sort(key=lambda group: (first.index(group[0]), not _is_baseline(*group)))
    return [
        RunCurve(name, _named(source, runs, "" if len(found) == 1 else name), list(_differences(source, runs)))
        for name, (source, runs) in zip(_names(found), found, strict=True)
    ]


def with_any(curves: Sequence[RunCurve], names: Collection[str]) -> int:
    """How many curves have one of the runs called ``names``."""
    return sum(any(run.name in names for run in curve.runs) for curve in curves)


def views(curves: Sequence[RunCurve]) -> Iterator[View]:
    """The means, then every image."""
    images = list(dict.fromkeys(name for curve in curves for run in curve.runs for name in run.images))
    yield _view(MEAN, [[(run, run.results) for run in curve.runs] for curve in curves])
    for image in images if len(images) > 1 else []:
        yield _view(image, [[(run, _alone(run, image)) for run in c.runs if image in run.images] for c in curves])


def _alone(run: Run, image: str) -> Results:
    """One image, treated as a whole run."""
    return Results([], dict(run.record(image)), run.results.measures)


def _view(title: str, found: Sequence[Sequence[tuple[Run, Results]]]) -> View:
    curves = [Points({}, [results for _, results in points]) for points in found]
    shown = measures(curves)
    points = {
        column: [
            [(*pair, run.name) for run, results in points for pair in Points({}, [results]).of(column)]
            for points in found
        ]
        for column in shown
    }
    bd = {column: [compared(curves[0], curve, column) for curve in curves] for column in shown}
    return View(title, points, bd)


def _key(source: Source, number: int, run: Run) -> str:
    """The same for the points of one curve."""
    if source.plan is None:
        return json.dumps([None, _identity(run)], sort_keys=True)
    plan = source.plan
    labels = {axis.key: run.labels[axis.key] for axis in plan.curve_axes}
    return json.dumps([number, labels])


def _identity(run: Run) -> dict[str, Any]:
    """All options of a run, by dotted key, that define its curve: without its place and its requested quality."""
    options = dict(_flat({"model": run.config["model"]["init_args"], "data": run.config["data"]}))
    varied = ["model.target.value", *EXECUTION, _parameter(options)]
    return {key: value for key, value in options.items() if key not in varied}


def _parameter(options: Mapping[str, Any]) -> str:
    """The key of the option that rate control sets. Raises :class:`PscxError` for a codec that is not known."""
    name = str(options.get("model.codec"))
    family = CODECS.find(name)
    if family is None:
        raise PscxError(f"a run has the unknown codec '{name[:64]}'; if it is in a plugin, {HOW}")
    turned = f"model.codec.{family.turned}"
    kind = kind_in(parameters_of(family)[family.turned].annotation)
    component = None if kind is None else kind[0].find(str(options.get(turned)))
    return turned if component is None else f"{turned}.{component.parameter_name}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a saved configuration by dotted key; a component's own key holds its name."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    if "class_path" in value:
        yield path, _short(str(value["class_path"]))
        value = value.get("init_args") or {}
    for key, item in value.items():
        yield from _flat(item, f"{path}.{key}" if path else str(key))


def _short(path: str) -> str:
    """The name under which a class is registered, or its path."""
    cls = registered(path)
    registry = None if cls is None else registry_of(cls)
    return path if cls is None or registry is None else registry.name_of(cls)


def _differences(source: Source, runs: Sequence[Run]) -> dict[str, str]:
    """The labels of a curve of an ablation that are not its baseline's."""
    baseline = source.plan.baseline if source.plan else {}
    return {key: label for key, label in runs[0].labels.items() if baseline.get(key, label) != label}


def _named(source: Source, runs: Sequence[Run], curve: str) -> list[Run]:
    """The runs of a curve, those of cells under short names: ``coder=raw, quantizer.step=0.5``."""
    if source.plan is None:
        return list(runs)
    rate = source.plan.rate
    return [replace(run, name=", ".join(filter(None, [curve, in_words({rate: run.labels[rate]})]))) for run in runs]


def _is_baseline(source: Source, runs: Sequence[Run]) -> bool:
    return source.plan is not None and not _differences(source, runs)


def _names(groups: Sequence[tuple[Source, Sequence[Run]]]) -> list[str]:
    """Short names of the curves: differences of cells from the baseline, options, or folder names."""
    alone = [runs[0] for source, runs in groups if source.plan is None]
    several = len({id(source) for source, _ in groups if source.plan is not None}) > 1
    names = []
    for source, runs in groups:
        if source.plan is None:
            names.append(_name(runs, alone))
        else:
            name = in_words(_differences(source, runs)) or "baseline"
            names.append(f"{source.plan.root.resolve().name}: {name}" if several else name)
    return numbered(names)


def numbered(names: Sequence[str]) -> list[str]:
    """The names, each that occurs several times with its place in the list behind it."""
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def _name(runs: Sequence[Run], alone: Sequence[Run]) -> str:
    """The options in which these evaluations differ from the others, where they are few, else their folders."""
    if len(runs) == 1:
        return runs[0].name
    identities = [_identity(run) for run in alone]
    keys = dict.fromkeys(key for identity in identities for key in identity)
    varied = [key for key in keys if len({json.dumps(identity.get(key)) for identity in identities}) > 1]
    if not 0 < len(varied) <= LONGEST_NAME:
        shared = commonprefix([run.name for run in runs]).rstrip("0123456789-_.= ")  # noqa: RUF071 (letters are meant)
        return shared or ", ".join(run.name for run in runs)
    own = _identity(runs[0])
    return in_words({key: str(own.get(key, "-")) for key in varied})
