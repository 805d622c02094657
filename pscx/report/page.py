"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pscx import __version__
from pscx.report.curves import RunCurve, View, with_any
from pscx.report.pictures import legend
from pscx.report.runs import Run, Source

TEMPLATES = Path(__file__).parent / "templates"
LARGE = 10
RATE = {"bpp": ("rate", "bpp", 4)}
COSTS = {
    "measurements": ("measurements", "", 0),
    "evaluations": ("evaluations", "", 0),
    "encode_seconds": ("encoding", "s", 2),
    "decode_seconds": ("decoding", "s", 2),
    "network_share": ("in the network", "%", 0),
}
"""Columns of a run as the page calls them, their units and digits; those of its metrics stand between the two."""


def page(
    sources: Sequence[Source], curves: Sequence[RunCurve], views: Sequence[View], items: Sequence[Mapping[str, Any]]
) -> str:
    """The page about ``sources``, whose ``items`` are those of :class:`pscx.report.gallery.Gallery`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    runs = [run for curve in curves for run in curve.runs]
    found = {key: measure for run in runs for key, measure in run.results.measures.items()}
    metrics = {key: (measure.title, measure.unit, digits(key, runs)) for key, measure in found.items()}
    columns = {**RATE, **metrics, **COSTS}
    data = {
        "measures": {key: found[key].label for key in views[0].points},
        "curves": [curve.name for curve in curves],
        "views": [asdict(view) for view in views],
        "items": list(items),
        "budget": [_budget(run) for run in runs],
        "columns": columns,
        "metrics": [key for key, measure in found.items() if not measure.of_set],
    }
    return environment.get_template("page.html").render(
        title=", ".join(_title(source) for source in sources),
        version=__version__,
        data=data,
        columns={key: column for key, column in columns.items() if any(run.mean(key) is not None for run in runs)},
        value=lambda run, key: shown(run.mean(key), *columns[key][1:]),
        titles={key: found[key].title for key in views[0].points},
        runs=runs,
        counts=sorted({len(run.images) for run in runs}),
        curves=curves,
        streams=sum(len(run.images) for run in runs),
        seen=with_any(curves, [item["run"] for item in items]),
        legend=Markup(legend()),
        plotly=Markup(get_plotlyjs()),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _title(source: Source) -> str:
    return source.runs[0].name if source.plan is None else source.plan.root.resolve().name


def digits(key: str, runs: Sequence[Run]) -> int:
    """Digits after the point that a metric is shown with: fewer where its values are large."""
    values = [abs(value) for run in runs if (value := run.mean(key)) is not None]
    return 2 if max(values, default=0) >= LARGE else 4


def shown(value: float | None, unit: str, digits: int) -> str:
    """A value as the page shows it, without its unit."""
    return "-" if value is None else f"{100 * value if unit == '%' else value:,.{digits}f}"


def _budget(run: Run) -> dict[str, Any]:
    encoding, share = run.mean("encode_seconds") or 0.0, run.mean("network_share") or 0.0
    return {
        "run": run.name,
        "evaluations": run.mean("evaluations"),
        "network": encoding * share,
        "rest": encoding * (1 - share),
        "decoding": run.mean("decode_seconds"),
    }
