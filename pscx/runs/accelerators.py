"""On which device a run of Lightning computes: what was asked for, or the best that a codec can rely on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import StrategyRegistry

from pscx.config import ConfigError, Layer, option_layer
from pscx.execution.placement import why_not_auto
from pscx.runtime.devices import AUTO, accelerator, device_of

DEVICE = "--device"


def device_layers(args: Sequence[str]) -> tuple[list[Layer], list[str]]:
    """Take ``--device NAME``, a short form of options of the trainer, out of ``args``: its layers and the rest.

    ``auto`` leaves the choice to :func:`on_best_device`. Raises :class:`pscx.errors.PscxError` for a device that is not
    there.
    """
    names: list[str] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
        name, equals, value = arg.partition("=")
        if name != DEVICE:
            rest.append(arg)
        elif not (value := value if equals else next(queue, "")) or value.startswith("--"):
            raise ConfigError("option --device needs a value")
        else:
            names.append(value)
    if not names or names[-1] == AUTO:
        return [], rest
    device = device_of(names[-1])
    layers = [option_layer("trainer.accelerator", device.type)]
    if device.type != "cpu":
        layers.append(option_layer("trainer.devices", [device.index]))
    return layers, rest


def on_best_device(tree: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """A checked configuration on the accelerator of this machine, if it runs a codec and none of ``layers`` names one.

    Where the accelerator does not give the CPU's bits, the run stays on the CPU, and one process says so on stderr.
    """
    trainer = dict(tree["trainer"])
    if trainer.get("accelerator") == "cpu" and not _named(layers):
        if reason := why_not_auto():
            _say(reason)
        elif (kind := accelerator()) is not None:
            trainer = {"devices": 1, **trainer, "accelerator": kind}
    kind = trainer.get("accelerator")
    if "strategy" not in trainer and kind in StrategyRegistry.available_strategies():
        trainer["strategy"] = kind  # whose default is the CPU for an accelerator that Lightning does not know
    return {**tree, "trainer": trainer}


def _named(layers: Iterable[Layer]) -> bool:
    trainers = [layer.values.get("trainer") for layer in layers]
    return any(isinstance(trainer, Mapping) and "accelerator" in trainer for trainer in trainers)


@rank_zero_only
def _say(sentence: str) -> None:
    print(f"pscx: {sentence}", file=sys.stderr)
