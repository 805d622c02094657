"""The page itself: HTML that opens from disk, with everything in it that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pscx import __version__
from pscx.ablation.results import MEASURES
from pscx.errors import PscxError
from pscx.report.curves import RunCurve, View
from pscx.report.pictures import legend
from pscx.report.runs import Run, Source

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = {
    "bpp": ("rate", "bpp", 4),
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "ms_ssim": ("MS-SSIM", "", 4),
    "rows": ("rows", "", 0),
    "evaluations": ("evaluations", "", 0),
    "encode_seconds": ("encoding", "s", 2),
    "decode_seconds": ("decoding", "s", 2),
    "network_share": ("in the network", "%", 0),
}
"""Measures of a run as the page calls them, their units and digits."""


def check_installed() -> None:
    """Raise :class:`PscxError` where what the page is made with is not installed."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise PscxError(f"report needs {error.name}: pip install 'pscx[report]'") from error


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
    runs = [(curve, run) for curve in curves for run in curve.runs]
    streams = sum(len(run.images) for _, run in runs)
    data = {
        "measures": {key: MEASURES[key] for key in views[0].points},
        "curves": [curve.name for curve in curves],
        "views": [asdict(view) for view in views],
        "items": list(items),
        "budget": [_budget(run) for _, run in runs],
        "columns": COLUMNS,
    }
    return environment.get_template("page.html").render(
        title=", ".join(_title(source) for source in sources),
        version=__version__,
        data=data,
        rows=[_row(curve, run) for curve, run in runs],
        columns=COLUMNS,
        runs=[run for _, run in runs],
        curves=curves,
        streams=streams,
        legend=Markup(legend()),
        plotly=Markup(get_plotlyjs()),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _title(source: Source) -> str:
    return source.runs[0].name if source.plan is None else source.plan.root.resolve().name


def _row(curve: RunCurve, run: Run) -> dict[str, Any]:
    means = [shown(key, run.mean(key)) for key in COLUMNS]
    return {"run": run.name, "curve": curve.name, "images": len(run.images), "means": means}


def shown(key: str, value: float | None) -> str:
    """A measure as the page shows it, without its unit."""
    if value is None:
        return "-"
    _, unit, digits = COLUMNS[key]
    return f"{100 * value if unit == '%' else value:,.{digits}f}"


def _budget(run: Run) -> dict[str, Any]:
    encoding, share = run.mean("encode_seconds") or 0.0, run.mean("network_share") or 0.0
    return {
        "run": run.name,
        "evaluations": run.mean("evaluations"),
        "network": encoding * share,
        "rest": encoding * (1 - share),
        "decoding": run.mean("decode_seconds"),
    }
