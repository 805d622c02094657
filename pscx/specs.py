"""What a stream says of the codec that made it, and the way back to that codec.

A spec is a small tree of names and all their options, so that a later change of a default does not change what an old
stream means. It holds nothing that is loaded, imported or executed: of a prior it gives the name, the numbers and the
choices of a few fixed words, never where its weights are; the fingerprint in the header identifies those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_origin

from pscx.bounds import check_bounds
from pscx.codec import PSC
from pscx.coders import CODERS
from pscx.config import STREAM_LIMIT, Checker, ConfigError, Layer, build, built, class_of
from pscx.errors import PscxError, StreamError
from pscx.hub import no_downloads
from pscx.priors import PRIORS, Prior
from pscx.quantizers import QUANTIZERS, Quantizer
from pscx.recipes import RECIPES, read_recipe
from pscx.registry import NAME, Registry, parameters_of
from pscx.restorations import RESTORATIONS, Restoration
from pscx.rows import ROWS, RowRule
from pscx.samplers import SAMPLERS, Sampler

KINDS: dict[str, Registry[Any]] = {
    "prior": PRIORS,
    "sampler": SAMPLERS,
    "rows": ROWS,
    "quantizer": QUANTIZERS,
    "coder": CODERS,
    "restoration": RESTORATIONS,
    "restoration_sampler": SAMPLERS,
}
NUMBERS = ("samples", "iterations", "batch")
OPTIONS = (*NUMBERS, "antithetic")


def codec_spec(psc: PSC) -> dict[str, Any]:
    """Everything about a codec that its decoder must know, except what the header has fields for.

    Those are the quantizer's parameter, the seed and the prior's fingerprint. Raises :class:`PscxError` where a
    component is not registered or has an option that a stream cannot hold.
    """
    spec: dict[str, Any] = {}
    for kind, registry in KINDS.items():
        component = getattr(psc, kind)
        if kind == "restoration_sampler" and component is psc.sampler:
            continue
        try:
            spec[kind] = _quantizer_spec(component) if kind == "quantizer" else registry.spec(component)
        except KeyError as error:
            raise PscxError(str(error.args[0])) from None
    spec["prior"] = _without_text(spec["prior"])
    spec |= {key: getattr(psc, key) for key in OPTIONS}
    _check_portable(spec)
    try:
        check_bounds(spec)
    except ValueError as error:
        raise PscxError(f"a stream cannot hold this codec: {error}") from error
    return spec


def parse_spec(text: str) -> Any:
    """The JSON of a stream, still not trusted. Raises :class:`StreamError` where it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"the stream's spec is not JSON: {error}") from error


def recipe_number(spec: Mapping[str, Any]) -> int:
    """The number of the shipped recipe that is this codec, or 0 where none is."""
    return next((number for number in RECIPES if recipe_spec(number) == spec), 0)


@lru_cache
def recipe_spec(number: int) -> dict[str, Any]:
    """The spec of a shipped recipe. Raises :class:`StreamError` for a number this version does not know."""
    if number not in RECIPES:
        known = ", ".join(f"{key} ({name})" for key, name in RECIPES.items())
        raise StreamError(f"the stream was made with recipe {number}, and this version of pscx has only {known}")
    model = read_recipe(RECIPES[number])["model"]
    checked = Checker([Layer(f"recipe '{RECIPES[number]}'", {"model": model})]).options(PSC, model, "model", "codec")
    spec = {key: checked[key] for key in OPTIONS}
    for kind, component in _parts(checked).items():
        spec[kind] = _quantizer_spec(component) if kind == "quantizer" else KINDS[kind].spec(component)
    spec["prior"] = _without_text(_prior_spec(checked["prior"]))
    return spec


@dataclass(frozen=True)
class Wanted:
    """The codec that a stream asks for, whose prior is not loaded yet.

    ``form`` is what the spec says of the prior, checked; ``parts`` are all other components, built, and ``numbers`` the
    options of :data:`OPTIONS`.
    """

    form: Mapping[str, Any]
    parts: Mapping[str, Any]
    numbers: Mapping[str, Any]
    seed: int

    @property
    def samples(self) -> int:
        return int(self.numbers["samples"])

    @property
    def iterations(self) -> int:
        return int(self.numbers["iterations"])

    @property
    def sampler(self) -> Sampler:
        sampler: Sampler = self.parts["sampler"]
        return sampler

    @property
    def rows(self) -> RowRule:
        rows: RowRule = self.parts["rows"]
        return rows

    @property
    def restoration(self) -> Restoration:
        restoration: Restoration = self.parts["restoration"]
        return restoration

    @property
    def restoration_sampler(self) -> Sampler:
        sampler: Sampler = self.parts.get("restoration_sampler", self.sampler)
        return sampler

    @property
    def kind(self) -> type[Prior]:
        """The class of the prior."""
        return class_of(self.form)

    def psc(self, prior: Prior) -> PSC:
        """The codec with its prior. Raises :class:`StreamError` where that is of another kind."""
        if type(prior) is not self.kind:
            raise StreamError(
                f"the stream was made with a prior of the kind {self.kind.__name__}, and this one is a "
                f"{type(prior).__name__}"
            )
        return PSC(prior, **self.parts, **self.numbers, seed=self.seed)

    def load(self, path: str | None = None, *, download: bool = False) -> Prior:
        """The prior from ``path``, a folder or a hub id, or from where one of its kind is by default.

        Nothing is downloaded unless ``path`` or ``download`` says so: else :class:`StreamError` is raised where it is
        not on this machine, and tells what to give. Raises ``ConfigError`` where it cannot be loaded.
        """
        if path is not None or download:
            return _load_prior(self.form, path)
        with no_downloads() as missed:
            try:
                return _load_prior(self.form, None)
            except ConfigError as error:
                if not missed:
                    raise
                raise StreamError(
                    f"the stream was made with a prior of the kind {PRIORS.name_of(self.kind)}, which is not on this "
                    f"machine: say where it is (--prior PATH), or have '{missed[0]}' downloaded (--download)"
                ) from error


def wanted_of_spec(spec: Mapping[str, Any], parameter: float | None, seed: int) -> Wanted:
    """The codec of a spec that came out of a stream, built from registered names alone; its prior is not loaded.

    Args:
        spec: as :func:`codec_spec` makes it; not trusted.
        parameter: of the quantizer.
        seed: of all noise.

    Raises:
        StreamError: for a spec that names anything unknown or out of bounds.
    """
    try:
        checked = _checked(spec)
        parts = _parts(checked)
        parts["quantizer"] = parts["quantizer"].with_parameter(parameter)
        for key in NUMBERS:
            if not 1 <= checked[key] <= STREAM_LIMIT:
                raise ConfigError(f"{key} must lie in 1..{STREAM_LIMIT}, got {checked[key]}")
    except (ConfigError, ValueError) as error:
        raise StreamError(f"the stream asks for a codec that cannot be had: {error}") from error
    return Wanted(checked["prior"], parts, {key: checked[key] for key in OPTIONS}, seed)


def psc_of_spec(spec: Mapping[str, Any], parameter: float | None, seed: int, *, prior: Prior | None = None) -> PSC:
    """:func:`wanted_of_spec` with its prior: ``prior``, or the one that is on this machine by default."""
    wanted = wanted_of_spec(spec, parameter, seed)
    return wanted.psc(wanted.load() if prior is None else prior)


def _parts(checked: Mapping[str, Any]) -> dict[str, Any]:
    """All components but the prior, built; an optional one that is null is left out."""
    forms = {kind: checked[kind] for kind in KINDS if kind != "prior" and checked.get(kind) is not None}
    return {kind: built(form) for kind, form in forms.items()}


def _checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    check_bounds(spec)
    known = {*KINDS, *OPTIONS}
    if not isinstance(spec, Mapping) or spec.keys() - known or (known - {"restoration_sampler"}) - spec.keys():
        raise ConfigError(f"a spec has the keys {', '.join(sorted(known))}")
    checker = Checker([], trusted=False)
    text = set(spec["prior"]) - set(_without_text(spec["prior"])) if isinstance(spec["prior"], Mapping) else ()
    if text:
        checker.fail(f"prior.{min(text)}", "cannot come from a stream")
    return checker.options(PSC, spec, "", "codec")


def _load_prior(form: Mapping[str, Any], path: str | None) -> Prior:
    cls, options = class_of(form), dict(form["init_args"])
    if path is not None:
        if "path" not in parameters_of(cls):
            raise ConfigError(f"the stream's prior is a {cls.__name__}, which is not loaded from a path: leave it out")
        options["path"] = path
    prior: Prior = build(cls, options)
    return prior


def _quantizer_spec(quantizer: Quantizer) -> dict[str, Any]:
    """Name and options without the one that is the parameter: it differs between two qualities."""
    spec = QUANTIZERS.spec(quantizer)
    if quantizer.parameter is None:
        return spec
    other = QUANTIZERS.spec(quantizer.with_parameter(quantizer.parameter / 2))
    return {key: value for key, value in spec.items() if key in other and other[key] == value}


def _prior_spec(form: Mapping[str, Any]) -> dict[str, Any]:
    """What ``PRIORS.spec`` would say of a prior that is not built."""
    cls = class_of(form)
    defaults = parameters_of(cls)
    return {
        "name": PRIORS.name_of(cls),
        **{key: form["init_args"].get(key, option.default) for key, option in defaults.items()},
    }


def _without_text(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A prior's spec without what could say where to load from: of text, only options of few fixed words stay."""
    cls = PRIORS.classes.get(str(spec.get("name")))
    words = {key for key, p in parameters_of(cls).items() if get_origin(p.annotation) is Literal} if cls else set()
    return {k: v for k, v in spec.items() if k == "name" or k in words or not isinstance(v, str)}


def _check_portable(options: Mapping[str, Any], path: str = "") -> None:
    for key, value in options.items():
        name = f"{path}{key}"
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, Mapping):
                _check_portable(item, f"{name}.")
            elif isinstance(item, str) and key != "name" and not NAME.fullmatch(item):
                raise PscxError(f"{name} is {item!r}, and a stream holds no text but plain lower-case words")
            elif isinstance(item, (int, float)) and not abs(item) <= STREAM_LIMIT:
                raise PscxError(f"{name} is {item}, and a stream holds no number beyond {STREAM_LIMIT}")
            elif not isinstance(item, (str, int, float, type(None))):
                raise PscxError(f"{name} is a {type(item).__name__}, and a stream holds numbers and words alone")
