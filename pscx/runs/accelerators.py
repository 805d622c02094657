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


def device_options(name: str | None) -> dict[str, Any]:
    """The trainer's options that ``--device NAME`` stands for; none for None and ``auto``.

    Raises :class:`pscx.errors.PscxError` if the device is not there.
    """
    if name is None or name == AUTO:
        return {}
    device = device_of(name)
    return (
        {"accelerator": device.type}
        if device.type == "cpu"
        else {"accelerator": device.type, "devices": [device.index]}
    )


def device_layers(name: str | None) -> list[Layer]:
    """:func:`device_options` as layers."""
    return [option_layer(f"trainer.{key}", value) for key, value in device_options(name).items()]


def best_accelerator() -> str | None:
    """The accelerator of this machine if it is bit-exact with the CPU, else none; one process says why on stderr."""
    if reason := why_not_auto():
        _say(reason)
        return None
    return accelerator()


def on_device(tree: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A checked configuration with these options of the trainer, and the strategy of its accelerator."""
    trainer = {**tree["trainer"], **options}
    kind = trainer.get("accelerator")
    if "strategy" not in trainer and kind in StrategyRegistry.available_strategies():
        trainer["strategy"] = kind  # whose default is the CPU for an accelerator that Lightning does not know
    return {**tree, "trainer": trainer}


def on_best_device(tree: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """A checked configuration on :func:`best_accelerator`, if it runs a codec and none of ``layers`` names one."""
    trainer = tree["trainer"]
    kind = best_accelerator() if trainer.get("accelerator") == "cpu" and not names_accelerator(layers) else None
    return on_device(tree, {} if kind is None else {"devices": trainer.get("devices", 1), "accelerator": kind})


def names_accelerator(layers: Iterable[Layer]) -> bool:
    """Whether one of ``layers`` says where a run computes."""
    trainers = [layer.values.get("trainer") for layer in layers]
    return any(isinstance(trainer, Mapping) and "accelerator" in trainer for trainer in trainers)


@rank_zero_only
def _say(sentence: str) -> None:
    print(f"pscx: {sentence}", file=sys.stderr)
