"""The grid of an ablation as a file beside its results."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pscx.ablation.plan import Axis, Cell, Plan
from pscx.errors import PscxError
from pscx.runtime.files import write_whole
from pscx.runtime.run_folder import mark
from pscx.runtime.safe_yaml import read_json

NAME = "grid.json"


def save_plan(plan: Plan) -> None:
    """Write the axes with the labels of their values, rate, baseline and the labels of each cell, under its root.

    The root is marked too: the plots beside the cells are no data.
    """
    content = {
        "axes": {axis.key: list(axis.values) for axis in plan.axes},
        "rate": plan.rate,
        "baseline": dict(plan.baseline),
        "cells": {cell.id: dict(cell.labels) for cell in plan.cells},
    }
    mark(plan.root)
    write_whole(plan.root / NAME, json.dumps(content, indent=1).encode(), force=True)


def load_plan(root: Path) -> Plan:
    """The grid whose results are under ``root``; of a cell's configuration only the folder is known.

    Raises :class:`PscxError` where there is no such file or it is damaged.
    """
    path = root / NAME
    try:
        content = read_json(path)
        axes = [Axis(key, dict.fromkeys(labels)) for key, labels in content["axes"].items()]
        cells = [Cell(id, labels, _tree(root, id)) for id, labels in content["cells"].items()]
        return _checked(Plan(axes, content["rate"], content["baseline"], cells, root))
    except FileNotFoundError:
        raise PscxError(f"'{path}' is missing: run pscx ablate again, which skips finished cells") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PscxError(f"'{path}' is damaged: run pscx ablate again, which skips finished cells") from error


def _checked(plan: Plan) -> Plan:
    """The plan. Raises ``ValueError`` where labels are not those of its axes, or the id of a cell is not a word."""
    values = {axis.key: list(axis.values) for axis in plan.axes}
    labelled = [dict(plan.baseline), *(dict(cell.labels) for cell in plan.cells)]
    if not all(isinstance(text, str) for key, labels in values.items() for text in (key, *labels)):
        raise ValueError("a label is not text")
    if dict(plan.baseline).keys() != values.keys() - {plan.rate}:
        raise ValueError("the baseline has other axes")
    if not all(cell.labels.keys() == values.keys() for cell in plan.cells):
        raise ValueError("a cell has other axes")
    if not all(label in values[key] for labels in labelled for key, label in labels.items()):
        raise ValueError("a cell has a label that its axis does not have")
    if plan.rate not in values or not all(re.fullmatch(r"\w+", cell.id) for cell in plan.cells):
        raise ValueError("the rate is no axis, or the id of a cell no word")
    return plan


def _tree(root: Path, id: str) -> dict[str, dict[str, str]]:
    return {"trainer": {"default_root_dir": str(root / "cells" / id)}}
