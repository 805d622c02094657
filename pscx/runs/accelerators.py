"""The device of a Lightning run: the requested one, or the best one that is bit-exact with the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import StrategyRegistry

from pscx.config import Layer, option_layer
from pscx.execution.placement import why_not_auto
from pscx.runtime.devices import AUTO, accelerator, device_of


def device_layers(name: str | None) -> list[Layer]:
    """The trainer's options that ``--device NAME`` stands for.

    None and ``auto`` leave the choice to :func:`on_best_device`. Raises :class:`pscx.errors.PscxError` if the device is
    not there.
    """
    if name is None or name == AUTO:
        return []
    device = device_of(name)
    layers = [option_layer("trainer.accelerator", device.type)]
    if device.type != "cpu":
        layers.append(option_layer("trainer.devices", [device.index]))
    return layers


def on_best_device(tree: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """A checked configuration on the accelerator of this machine, if it runs a codec and none of ``layers`` names one.

    If the accelerator is not bit-exact with the CPU, the run stays on the CPU, and one process says so on stderr.
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
