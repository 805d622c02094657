"""Writes a page and plots about folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pscx.errors import PscxError
from pscx.format.limits import Limits
from pscx.report.curves import curves_of, views, with_any
from pscx.report.gallery import Gallery, Others, choose
from pscx.report.originals import Originals
from pscx.report.page import page
from pscx.report.plots import plots
from pscx.report.runs import read_sources
from pscx.runtime.extras import required
from pscx.runtime.files import check_output, write_whole

SUFFIXES = (".html", ".htm")


def write_report(
    folders: Sequence[Path],
    output: Path,
    images: int = 12,
    originals: Path | None = None,
    prior_path: str | None = None,
    *,
    budget: float | None = None,
    force: bool = False,
    device: str = "cpu",
    others: Others | None = None,
) -> tuple[list[Path], str]:
    """Write the page ``output`` about runs, and ``STEM-psnr.svg``, ``STEM-psnr.png``, ... beside it.

    At most ``images`` streams are decoded and shown; ``originals`` and ``prior_path`` take the place of what the runs
    say of where their images and priors are; ``budget`` bounds the work for a stream
    (:class:`pscx.format.limits.Limits`); ``device`` is where streams are decoded, and ``others`` what they are restored
    by beside their own restorations.
    Returns the files, the page first, and how many streams it shows, and of how many curves where not of all.

    Raises :class:`PscxError` before anything is decoded where a folder holds no finished run, an output exists and
    ``force`` is off, or what pages are made with is not installed; then where a stream cannot be decoded.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise PscxError(f"a report is an HTML page: the output must end in .html, got '{output}'")
    for library in ("jinja2", "plotly"):
        required(library, "report", "pscx report")
    check_output(output, force=force)
    sources = read_sources(folders)
    if originals is not None and not originals.is_dir():
        raise PscxError(f"no such folder of originals: '{originals}'")
    curves = curves_of(sources)
    files = {output.with_name(f"{output.stem}-{name}"): data for name, data in plots(sources, curves).items()}
    for name in files:
        check_output(name, force=force)
    exhibits = choose(curves, images)
    items = list(Gallery(Originals(originals), prior_path, Limits.of(budget), device, others).items(exhibits))
    text = page(sources, curves, list(views(curves)), items)
    for name, data in {output: text.encode(), **files}.items():
        write_whole(name, data, force=force)
    streams = sum(len(run.images) for source in sources for run in source.runs)
    seen = with_any(curves, [exhibit.run.name for exhibit in exhibits])
    some = f", of {seen} of {len(curves)} curves (--images {len(curves)}: of each)" if 0 < seen < len(curves) else ""
    return [output, *files], f"{len(items)} of {streams} streams{some}"
