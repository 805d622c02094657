"""Where each value of a merged tree came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from pscx.config.canonical import canonical
from pscx.config.layers import ConfigError, Layer, merge
from pscx.config.recipes import read_recipe
from pscx.registry import choices, class_of_kind, parameters_of

SECTIONS = ("model", "data", "trainer")
RUN_OPTIONS = ("seed_everything", "ckpt_path", "verbose", "weights_only", "return_predictions")
"""What a config may hold beside its sections: the options of Lightning's commands."""


@dataclass(frozen=True)
class Sources:
    """Layers, later ones over earlier ones."""

    layers: Sequence[Layer]

    def tree(self, base: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """All layers merged over ``base`` and over the recipe that one of them names with the key ``recipe``."""
        recipe = self._recipe()
        if recipe is not None and not isinstance(recipe, str):
            self.fail("recipe", f"must be the name of a recipe, got {recipe!r}")
        if recipe is not None:
            try:
                base = merge(merge(base, self._module()), canonical(read_recipe(recipe)))
            except KeyError as error:
                self.fail("recipe", str(error.args[0]))
        for layer in self.layers:
            merged = merge(base, {key: value for key, value in layer.values.items() if key != "recipe"})
            base = with_prior(merged, base)
        return dict(base)

    def _recipe(self) -> Any:
        """The value of ``recipe`` in the last layer that has it, or none."""
        return next((layer.values["recipe"] for layer in reversed(self.layers) if "recipe" in layer.values), None)

    def _module(self) -> dict[str, Any]:
        """The name of the module that the last layer asks for, before a recipe says what its codec is made of."""
        models = [layer.values.get("model") for layer in self.layers]
        names = [model.get("name") if isinstance(model, Mapping) else model for model in models]
        given = [name for name in names if isinstance(name, str)]
        return {"model": {"name": given[-1]}} if given else {}

    def sections(self, tree: Mapping[str, Any], options: Iterable[str] = RUN_OPTIONS) -> None:
        """Refuse a top-level key that is neither a section nor one of ``options``."""
        known = [*SECTIONS, *options, "recipe"]
        for key in tree:
            if key not in known:
                self.fail(key, f"there is no such section or option{choices(key, known)}")

    def fail(self, path: str, reason: str) -> NoReturn:
        """Raise :class:`ConfigError`, with the source that set ``path`` if there is one."""
        layer = self.layer_of(path)
        if layer is not None and layer.problem:
            raise ConfigError(layer.problem)
        source = None if layer is None else layer.source
        if layer is None and path.startswith("model.codec") and self._recipe() is not None:
            source = f"recipe '{self._recipe()}'"
        between = " " if reason.startswith(("must ", "is ", "needs ", "cannot ")) else ": "
        where = f"option {source}" if source == f"--{path}" else f"{source}: {path}" if source else path
        raise ConfigError(f"{where}{between}{reason}")

    def layer_of(self, path: str) -> Layer | None:
        """The last layer that sets ``path``, or else the nearest section around it."""
        while path:
            for layer in reversed(self.layers):
                if sets(layer.values, path):
                    return layer
            path = path.rpartition(".")[0]
        return None


def with_prior(tree: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """``tree``; a codec that takes a prior and names none has that of the codec ``before``, which is of another family.

    All families of codecs with a prior share priors, so ``--model.codec ddcm`` needs no other option.
    """
    old, new = _codec(before), _codec(tree)
    if "prior" not in old or "prior" in new or not _takes_prior(new.get("name")):
        return tree
    return {**tree, "model": {**tree["model"], "codec": {**new, "prior": old["prior"]}}}


def _codec(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The codec of a tree that is not checked yet, as a mapping; empty where there is none."""
    model = tree.get("model")
    codec = model.get("codec") if isinstance(model, Mapping) else None
    if isinstance(codec, str):
        return {"name": codec}
    return codec if isinstance(codec, Mapping) else {}


def _takes_prior(family: Any) -> bool:
    cls = class_of_kind("codec", family) if isinstance(family, str) else None
    return cls is not None and "prior" in parameters_of(cls)


def sets(values: Any, path: str) -> bool:
    for key in path.split("."):
        if isinstance(values, str):
            return True
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
