"""What compressing takes of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pscx.captioners import Captioner
from pscx.codecs import CODECS, SignalCodec
from pscx.codecs.with_prior import PriorCodec
from pscx.compression.asked import checked_number
from pscx.config import Checker, ConfigError, Layer, built, option_layer
from pscx.priors import SPEEDS, Speed
from pscx.rate_control import Target

EVALUATION_ONLY = (
    *("restorations", "restoration", "perception", "simulate", "ranks_per_image", "metrics", "logged_pictures"),
)


@dataclass(frozen=True)
class Compressing:
    """What compressing takes of a config's ``model`` section."""

    codec: SignalCodec
    caption: Captioner | None = None
    target: Target | None = None


def compressing(layers: list[Layer], step: float | None = None) -> Compressing:
    """The codec, the captioner and the target of the ``model`` section that ``layers`` add up to.

    With ``step`` the codec is at that parameter, and there is no target.
    """
    forms = _checked(layers)
    codec: SignalCodec = built(forms["codec"])
    if step is not None:
        forms.pop("target", None)
        step = checked_number("step", step)
        try:
            codec = codec.with_parameter(step)
        except ValueError as error:
            raise ConfigError(f"step: {error}") from error
    if "caption" in forms and not codec.takes_captions:  # before the captioner is loaded
        raise ConfigError(f"model.caption must be null: the {takes_none(codec)}")
    return Compressing(codec, built(forms.get("caption")), built(forms.get("target")))


def speed_of(text: str) -> Speed:
    """What ``--speed`` says, a mapping in YAML such as ``{compile: true}``. Raises ``ConfigError``."""
    layer = option_layer("speed", text)
    speed: Speed = built(Checker([layer]).component(SPEEDS, layer.values["speed"], "speed"))
    return speed


def _checked(layers: list[Layer]) -> dict[str, Any]:
    """The options of :class:`Compressing` that are not null."""
    checker = Checker([_without_evaluation(layer) for layer in layers])
    tree = checker.tree()
    checker.sections(tree)
    model = tree.get("model")
    if not isinstance(model, dict) or "codec" not in model:
        name = layers[0].source if layers else "the config"
        raise ConfigError(f"{name}: its model section must have a codec, one of {', '.join(sorted(CODECS.classes))}")
    checked = checker.options(Compressing, model, "model", "model")
    return {key: form for key, form in checked.items() if form is not None}


def takes_none(codec: SignalCodec) -> str:
    """Which part of a codec takes no captions, and that it does not."""
    kind, part = ("prior", codec.prior) if isinstance(codec, PriorCodec) else ("codec", codec)
    return f"{kind} is a {type(part).__name__}, which takes no captions"


def _without_evaluation(layer: Layer) -> Layer:
    """A file without what only an evaluation knows; an option stays, to be refused."""
    model = layer.values.get("model")
    if not isinstance(model, dict) or layer.source.startswith("--"):
        return layer
    name = str(model.get("name", "evaluate")).rpartition(".")[2].lower()
    if name != "evaluate":
        return layer
    kept = {k: v for k, v in model.items() if k not in (*EVALUATION_ONLY, "name")}
    return replace(layer, values={**layer.values, "model": kept})
