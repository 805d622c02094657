"""Every registered component, with its defaults, in a codec whose streams decode to the simulation's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself

import pscx
from pscx.catalogue.components import SECTIONS
from pscx.registry import parameters_of


def has_place(cls: type[Any]) -> bool:
    """Whether a prior is loaded from a place that this package does not bring."""
    path = parameters_of(cls).get("path")
    return path is not None and path.default != "embedded"


KINDS = {key: SECTIONS[key] for key in ("prior", "sampler", "rows", "quantizer", "coder", "restoration")}

SMALL: dict[str, Any] = {
    "prior": "gaussian",
    "sampler": {"name": "ddrm", "steps": 2},
    "restoration_sampler": {"name": "ddrm", "steps": 2},
    "rows": {"name": "dct", "block": 8},
    "quantizer": {"name": "uniform", "step": 0.25},
    "coder": "posterior",
    "restoration": {"name": "mean", "samples": 1},
    "samples": 3,
    "iterations": 2,
}
ELSEWHERE = {  # priors that need a folder or a hub id have tests of their own
    name for name, cls in SECTIONS["prior"].classes.items() if has_place(cls)
}
NEEDED: dict[str, Any] = {"drawn": {"restoration": "sample", "eta": 0.5}}  # options without a default
CASES = [(kind, name) for kind, registry in KINDS.items() for name in registry.classes if name not in ELSEWHERE]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_round_trip(kind: str, name: str, astronaut: NDArray[np.uint8]) -> None:
    codec = pscx.load_codec(**{**SMALL, kind: {"name": name, **NEEDED.get(name, {})}})
    done = codec.simulate(astronaut[:16, :19])
    assert np.array_equal(pscx.Decompressor().decompress(done.data), done.pixels)
    assert done.pixels.std() > 0


def test_the_embedded_prior_is_among_them() -> None:
    assert {("prior", "ddpm"), ("prior", "gaussian")} <= set(CASES)
