"""The curves of a report as files, by the plots of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pscx.ablation import Axis, Plan
from pscx.ablation.plot import draw
from pscx.ablation.results import Curve as Points
from pscx.ablation.results import curves as of_plan
from pscx.report.curves import RunCurve
from pscx.report.runs import Source

AXIS = "curve"


def plots(sources: Sequence[Source], curves: Sequence[RunCurve]) -> dict[str, bytes]:
    """``psnr.svg``, ``psnr.png`` and so on: those of the one ablation, or one that has every curve."""
    plan = sources[0].plan
    if plan is not None and len(sources) == 1:
        return draw(plan, of_plan(plan, {run.folder.name: run.results for run in sources[0].runs}))
    axis = Axis(AXIS, {curve.name: None for curve in curves})
    found = [Points({AXIS: curve.name}, [run.results for run in curve.runs]) for curve in curves]
    return draw(Plan([axis], "", {AXIS: curves[0].name}, [], Path()), found)
