"""The results of an ablation: one tidy CSV, tables in Markdown, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pscx.ablation.plan import Plan, in_words, short
from pscx.ablation.plot import draw
from pscx.ablation.results import Curve, Results, alike, columns, compared, curves, measures
from pscx.ablation.saved import save_plan
from pscx.evaluation.tables import as_csv
from pscx.runtime.files import write_whole
from pscx.runtime.printing import printable

TABLE = "results.csv"
SUMMARY = "summary.md"


def write_report(plan: Plan, results: Mapping[str, Results], errors: Mapping[str, str]) -> str:
    """Write ``results.csv``, ``summary.md``, ``grid.json`` and the plots under the root; returns the tables as text.

    ``results`` and ``errors`` (sentences) go by the ids of cells. Without results only the text is returned.
    """
    shown = alike(results)
    found = curves(plan, shown)
    text = f"{_cells_table(plan, shown, errors)}\n\n{_bd_table(plan, found)}"
    if results:
        save_plan(plan)
        write_whole(plan.root / TABLE, as_csv(tidy(plan, results)), force=True)
        pictures = draw(plan, found)
        links = [f"![{measure.label} over rate]({column}.png)" for column, measure in measures(found).items()]
        write_whole(plan.root / SUMMARY, "\n\n".join([text, *links, ""]).encode(), force=True)
        for name, data in pictures.items():
            write_whole(plan.root / name, data, force=True)
    return text


def tidy(plan: Plan, results: Mapping[str, Results]) -> list[dict[str, str]]:
    """A record a cell and image: the id, the label on each axis, then what ``pscx test`` says of the image."""
    return [
        {"cell": cell.id, **cell.labels, "image": record["name"], **_without_name(record)}
        for cell in plan.cells
        if cell.id in results
        for record in results[cell.id].images
    ]


def _without_name(record: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in record.items() if key != "name"}


def markdown(header: Sequence[str], records: Sequence[Sequence[str]]) -> str:
    """A table whose columns also line up as plain text."""
    escaped = [[printable(text).replace("|", "\\|") for text in record] for record in (header, *records)]
    widths = [max(len(record[column]) for record in escaped) for column in range(len(header))]
    lines = ["| " + " | ".join(map(str.ljust, record, widths)) + " |" for record in escaped]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cells_table(plan: Plan, results: Mapping[str, Results], errors: Mapping[str, str]) -> str:
    shown = columns(results.values())
    records = []
    for cell in plan.cells:
        result = results.get(cell.id)
        values = ["-" if result is None else _number(result.mean(key)) for key in shown]
        note = f"failed: {errors[cell.id]}" if cell.id in errors else _note(result) if result else "not run"
        records.append([cell.id, *cell.labels.values(), *values, note])
    header = ["cell", *(axis.name for axis in plan.axes), *(key.replace("_", " ") for key in shown), "note"]
    return f"Means over images{_which(results)}:\n\n{markdown(header, records)}"


def _note(result: Results) -> str:
    """What a cell left out; its ``left_out.csv`` says why."""
    return {0: "", 1: "1 image left out"}.get(result.left_out, f"{result.left_out} images left out")


def _which(results: Mapping[str, Results]) -> str:
    """Which images the means are over, where cells have left out some."""
    if not any(result.left_out for result in results.values()):
        return ""
    names = [frozenset(record["name"] for record in result.images) for result in results.values()]
    if len(set(names)) > 1:  # alike() found none
        return " of each cell, which have no image in common"
    return f" ({len(names[0])} that all cells have)"


def _bd_table(plan: Plan, found: Sequence[Curve]) -> str:
    shown = measures(found)
    records = []
    for curve in found:
        differences = [compared(found[0], curve, column) for column in shown]
        values = ["-" if value is None else f"{value:+.1f}" for value, _ in differences]
        records.append([*curve.labels.values(), *values, "; ".join(dict.fromkeys(about for _, about in differences))])
    names = [axis.name for axis in plan.curve_axes]
    header = [*names, *(f"BD-rate in % ({measure.title})" for measure in shown.values()), "over"]
    baseline = in_words(plan.baseline) or "the only curve"
    title = (
        f"Rate at equal quality against the baseline ({baseline}), curves over {short(plan.rate)}; below 0: fewer bits"
    )
    return f"{title}:\n\n{markdown(header, records)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
