"""The codec in a stream: its spec, and the codec that a spec describes.

A spec is a small tree of names and all their options, so that a later change of a default does not change what an old
stream means. It holds nothing that is loaded, imported or executed. For a prior it has the name, the numbers and the
options with a fixed set of words, but never the place of its weights; the fingerprint in the header identifies those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_origin

from torch import Tensor

from pscx.codecs.base import CODECS, SignalCodec
from pscx.config import (
    STREAM_FAMILY,
    Checker,
    ConfigError,
    Layer,
    Stream,
    WrittenRun,
    build,
    built,
    class_of,
)
from pscx.config.recipes import RECIPES, read_shipped
from pscx.errors import PscxError, StreamError
from pscx.priors import PRIORS, Prior
from pscx.registry import Registry, parameters_of, registry_of
from pscx.restorations.base import Restoration
from pscx.rows import ROWS
from pscx.runtime.bounds import check_bounds
from pscx.runtime.hub import no_downloads

BESIDE = "seed"  # the option that has a field of its own in the header


def codec_spec(codec: SignalCodec) -> dict[str, Any]:
    """Everything that a decoder must know about a codec, without the fields of the header.

    The header has the parameter, the seed and the prior's fingerprint. Raises :class:`PscxError` if a component is not
    registered or has an option that a stream cannot hold.
    """
    try:
        spec = _spec(type(codec), codec.options())
    except KeyError as error:
        raise PscxError(str(error.args[0])) from None
    return _portable(spec)


def _portable(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec, where a stream can hold it. Raises :class:`PscxError` where not."""
    _check_portable(spec)
    try:
        check_bounds(spec)
    except ValueError as error:
        raise PscxError(f"a stream cannot hold this codec: {error}") from error
    return spec


def _spec(family: type[SignalCodec], options: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a family's options; ``prior`` may be an object, or the spec of one that is not built."""
    name = CODECS.name_of(family)
    spec: dict[str, Any] = {} if name == STREAM_FAMILY else {"name": name}
    for key, value in options.items():
        registry = registry_of(type(value))
        if value is None or key == BESIDE or (key == family.turned and registry is None):
            continue
        if key == family.turned:
            spec[key] = _without_parameter(value)
        else:
            spec[key] = value if registry is None else registry.spec(value)
    if "prior" in spec:
        spec["prior"] = _without_implied(PRIORS, _without_text(spec["prior"]))
    if "rows" in spec:
        spec["rows"] = _without_implied(ROWS, spec["rows"])
    return spec


def parse_spec(text: str) -> Any:
    """Parse the JSON of a stream; the result is not trusted. Raises :class:`StreamError` if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"the stream's spec is not JSON: {error}") from error


def recipe_number(spec: Mapping[str, Any]) -> int:
    """The number of the shipped recipe with this spec, or 0."""
    return next((number for number in RECIPES if recipe_spec(number) == spec), 0)


@lru_cache
def recipe_spec(number: int) -> dict[str, Any]:
    """The spec of a shipped recipe. Raises :class:`StreamError` for a number this version does not know."""
    if number not in RECIPES:
        known = ", ".join(f"{key} ({name})" for key, name in RECIPES.items())
        raise StreamError(f"the stream was made with recipe {number}, and this version of pscx has only {known}")
    return spec_of_layer(Layer(f"recipe '{RECIPES[number]}'", read_shipped(RECIPES[number])))


def spec_of_layer(layer: Layer) -> dict[str, Any]:
    """The spec of the codec in a layer's ``model`` section, whose prior is not loaded; nothing is imported by name.

    Raises :class:`PscxError` where there is no such codec, or a stream cannot hold it.
    """
    checked = Checker([layer], WrittenRun()).component(CODECS, layer.values["model"]["codec"], "model.codec")
    family, options = class_of(checked), checked["init_args"]
    parts = _parts(family, options)
    if options.get("prior") is not None:
        parts["prior"] = _prior_spec(options["prior"])
    return _portable(_spec(family, parts))


class AbsentPrior(Prior):
    """Stands for a prior that is not loaded yet: a codec with it says how many denoiser evaluations it asks for."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        raise AssertionError("the prior is not loaded")

    def to_signal(self, image: Tensor) -> Tensor:
        raise AssertionError("the prior is not loaded")

    def to_image(self, signal: Tensor) -> Tensor:
        raise AssertionError("the prior is not loaded")

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        raise AssertionError("the prior is not loaded")

    def block_covariance(self, block: int) -> Tensor:
        raise AssertionError("the prior is not loaded")

    def fingerprint(self) -> bytes:
        raise AssertionError("the prior is not loaded")


@dataclass(frozen=True)
class Wanted:
    """The codec that a stream asks for, whose prior is not loaded yet.

    ``form`` is what the spec says of the prior, checked, or none for a family without one; ``parts`` are all other
    options, components built; ``restoration`` takes the place of the codec's own.
    """

    family: type[SignalCodec]
    form: Mapping[str, Any] | None
    parts: Mapping[str, Any]
    seed: int
    restoration: Restoration | None = None

    @property
    def kind(self) -> type[Prior] | None:
        """The class of the prior, or none."""
        return None if self.form is None else class_of(self.form)

    def evaluations(self, restorations: int) -> int:
        """Denoiser evaluations (NFE) of one decoding with so many restorations, at most; of an unguided denoiser."""
        return self._made(None if self.form is None else AbsentPrior()).evaluations(restorations)

    def codec(self, prior: Prior | None) -> SignalCodec:
        """The codec with its prior. Raises :class:`StreamError` where that is of another kind."""
        if prior is not None and type(prior) is not self.kind:
            wanted = "none" if self.kind is None else self.kind.__name__
            raise StreamError(
                f"the stream was made with a prior of the kind {wanted}, and this one is a {type(prior).__name__}"
            )
        return self._made(prior)

    def _made(self, prior: Prior | None) -> SignalCodec:
        make: Callable[..., SignalCodec] = self.family
        parts = dict(self.parts) if prior is None else {**self.parts, "prior": prior}
        if BESIDE in parameters_of(self.family):
            parts[BESIDE] = self.seed
        try:
            made = make(**parts)
        except ValueError as error:
            raise StreamError(f"the stream asks for a codec that cannot be built: {error}") from error
        return made if self.restoration is None else made.restored_by(self.restoration)

    def load(self, path: str | None = None, *, download: bool = False, known: str | None = None) -> Prior:
        """The prior from ``path``, a folder or a hub id, or from where it is ``known`` to be, or by default.

        Nothing is downloaded unless ``path`` or ``download`` says so: else :class:`StreamError` is raised where it is
        not on this machine, and tells what to give. Raises ``ConfigError`` where it cannot be loaded.
        """
        assert self.form is not None
        assert self.kind is not None
        if path is not None or download:
            return _load_prior(self.form, path or known)
        with no_downloads() as missed:
            try:
                return _load_prior(self.form, known)
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
        parameter: the parameter that rate control chose.
        seed: seed of all noise.

    Raises:
        StreamError: for a spec that names anything unknown or out of bounds.
    """
    try:
        family, checked = _checked(spec)
        parts = _parts(family, checked)
        if family.turned not in _scalar(family):
            parts[family.turned] = parts[family.turned].with_parameter(parameter)
        elif parameter is None:
            raise ValueError(f"its {family.turned} is missing")
        else:
            parts[family.turned] = parameter
    except (ConfigError, ValueError) as error:
        raise StreamError(f"the stream asks for a codec that cannot be built: {error}") from error
    parts.pop("prior", None)
    return Wanted(family, checked.get("prior"), parts, seed)


def _parts(family: type[SignalCodec], checked: Mapping[str, Any]) -> dict[str, Any]:
    """All options but the prior, components built, in the constructor's order."""
    defaults = {key: p.default for key, p in parameters_of(family).items() if p.default is not p.empty}
    given = {key: checked.get(key, defaults.get(key)) for key in parameters_of(family)}
    return {key: None if key == "prior" else built(value) for key, value in given.items() if key != BESIDE}


def _checked(spec: Mapping[str, Any]) -> tuple[type[SignalCodec], dict[str, Any]]:
    check_bounds(spec)
    name = spec.get("name", STREAM_FAMILY) if isinstance(spec, Mapping) else STREAM_FAMILY
    checker = Checker([], Stream())
    family = checker.find(CODECS, name, "codec")
    options = parameters_of(family)
    needed = {key for key, p in options.items() if p.default is not None} - {BESIDE, *_scalar(family)}
    known = {*options, "name"} - {BESIDE, *_scalar(family)}
    if not isinstance(spec, Mapping) or spec.keys() - known or needed - spec.keys():
        raise ConfigError(f"a spec has the keys {', '.join(sorted(known - {'name'}))}")
    prior = spec.get("prior")
    text = set(prior) - set(_without_text(prior)) if isinstance(prior, Mapping) else ()
    if text:
        checker.fail(f"prior.{min(text)}", "cannot come from a stream")
    return family, checker.options(family, {k: v for k, v in spec.items() if k != "name"}, "", "codec")


def _load_prior(form: Mapping[str, Any], path: str | None) -> Prior:
    cls, options = class_of(form), dict(form["init_args"])
    if path is not None:
        if "path" not in parameters_of(cls):
            raise ConfigError(f"the stream's prior is a {cls.__name__}, which is not loaded from a path: leave it out")
        options["path"] = path
    prior: Prior = build(cls, options)
    return prior


def _without_parameter(component: Any) -> dict[str, Any]:
    """Name and options without the one that is the parameter: it differs between two qualities."""
    registry = registry_of(type(component))
    assert registry is not None
    spec = registry.spec(component)
    if component.parameter is None:
        return spec
    other = registry.spec(component.with_parameter(component.parameter / 2))
    return {key: value for key, value in spec.items() if key in other and other[key] == value}


def _scalar(family: type[SignalCodec]) -> set[str]:
    """The option that rate control turns where it is a number, which the header holds."""
    hint = parameters_of(family)[family.turned].annotation
    return set() if isinstance(hint, type) and registry_of(hint) is not None else {family.turned}


def _prior_spec(form: Mapping[str, Any]) -> dict[str, Any]:
    """What ``PRIORS.spec`` would say of a prior that is not built."""
    cls = class_of(form)
    defaults = parameters_of(cls)
    return {
        "name": PRIORS.name_of(cls),
        **{key: form["init_args"].get(key, option.default) for key, option in defaults.items()},
    }


def _without_text(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A prior's spec without what could say where to load from, or how to run it: of text, only fixed words stay."""
    cls = PRIORS.classes.get(str(spec.get("name")))
    words = {key for key, p in parameters_of(cls).items() if get_origin(p.annotation) is Literal} if cls else set()
    beside = {*(cls or Prior).beside}
    return {k: v for k, v in spec.items() if k == "name" or k in words or not (isinstance(v, str) or k in beside)}


def _without_implied(registry: Registry[Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a component of a kind without options at the values that streams imply."""
    implied = registry.get(spec["name"]).implied
    return {key: value for key, value in spec.items() if key not in implied or implied[key] != value}


def _check_portable(options: Mapping[str, Any], path: str = "") -> None:
    for key, value in options.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, Mapping):
                _check_portable(item, f"{path}{key}.")
            elif key != "name":
                try:
                    Stream().check(item)
                except ValueError as error:
                    raise PscxError(f"{path}{key} {error}") from error
