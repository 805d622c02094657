"""From folders of runs to tables and figures beside what others published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pscx.comparison.curve import Compared
from pscx.comparison.figure import figures
from pscx.comparison.jpegs import KEY, jpeg_here
from pscx.comparison.measured import Measured, compared, measures_in, read_measured
from pscx.comparison.published import AV1, JPEG, MEASURES, published
from pscx.comparison.published_sets import SETS
from pscx.comparison.tables import Comparison, Range, points, rows, sources, table
from pscx.errors import PscxError
from pscx.evaluation.tables import as_csv
from pscx.registry import choices
from pscx.runtime.files import check_output, write_whole

NAME = "comparison"
WITHIN: Range = (26.0, 35.0)
"""The PSNR in dB within which rates are compared with published ones."""


@dataclass(frozen=True)
class Wanted:
    """What to compare with: a published set or none, the curve that all stand against, a range of PSNR in dB.

    ``originals`` is the folder of the images of the runs, for JPEG; none: where the runs found them.
    """

    published: str | None = None
    against: str | None = None
    within: Range | None = None
    originals: Path | None = None


def write_comparison(folders: Sequence[Path], output: Path, wanted: Wanted, force: bool = False) -> str:
    """Write ``comparison.md``, ``comparison.csv``, ``comparison-points.csv`` and figures ``comparison-METRIC.*``.

    Returns the tables as text. ``folders`` are what ``pscx test``, ``pscx ablate`` or ``rate_distortion.py`` wrote,
    ``output`` is the folder of the files.

    Raises :class:`PscxError` where one holds no finished run, the runs have no image in common or are not of the
    published set's images, ``wanted.against`` is no curve, ``wanted.within`` does not rise, ``wanted.originals`` is no
    folder or has no published set beside it, or an output exists and ``force`` is off.
    """
    _check(wanted)
    for name in (f"{NAME}.md", f"{NAME}.csv", f"{NAME}-points.csv"):
        check_output(output / name, force=force)
    found = read_measured(folders)
    of = None if wanted.published is None else SETS[wanted.published]
    own = compared(found, of)
    others = [] if wanted.published is None else published(wanted.published)
    jpeg, says = _jpeg(found, own, others, wanted.originals)
    comparison = _comparison(_apart([*own, *jpeg], others), found, wanted)
    text = "\n\n".join([*_introduction(comparison, wanted, says), *_tables(comparison), sources(comparison)])
    pictures = {f"{NAME}-{name}": data for name, data in figures(comparison).items()}
    links = [f"![{m.label} over rate]({NAME}-{column}.svg)" for column, m in comparison.measures.items()]
    files = {
        f"{NAME}.csv": as_csv(rows(comparison)),
        f"{NAME}-points.csv": as_csv(points(comparison)),
        **pictures,
        f"{NAME}.md": "\n\n".join([text, *links, ""]).encode(),
    }
    for name in files:
        check_output(output / name, force=force)
    for name, data in files.items():
        write_whole(output / name, data, force=force)
    return text


def _check(wanted: Wanted) -> None:
    if wanted.within is not None and not wanted.within[0] < wanted.within[1]:
        raise PscxError(f"--within must be two PSNR in rising order, got {wanted.within[0]:g} {wanted.within[1]:g}")
    if wanted.originals is not None and wanted.published is None:
        raise PscxError("--originals needs --published: without it no original is read")
    if wanted.originals is not None and not wanted.originals.is_dir():
        raise PscxError(f"no such folder of originals: '{wanted.originals}'")


def _apart(measured: Sequence[Compared], others: Sequence[Compared]) -> list[Compared]:
    """All curves. A measured one whose key a published one has, such as ``webp``, becomes ``webp (here)``."""
    taken = {curve.key for curve in others}
    own = [replace(curve, key=f"{curve.key} (here)") if curve.key in taken else curve for curve in measured]
    return [*own, *others]


def _comparison(curves: Sequence[Compared], found: Sequence[Measured], wanted: Wanted) -> Comparison:
    keys = [curve.key for curve in curves]
    name = wanted.against or (AV1 if AV1 in keys else keys[0])
    if name not in keys:
        raise PscxError(f"--against must name a curve of the comparison, got '{name}'{choices(name, keys)}")
    own = measures_in(found)
    shown = {column for curve in curves if curve.measured for column in curve.points}
    measures = {column: measure for column, measure in {**own, **MEASURES}.items() if column in shown}
    within = wanted.within or (WITHIN if wanted.published else None)
    return Comparison(curves, curves[keys.index(name)], measures, {} if within is None else {"psnr": within})


def _jpeg(
    found: Sequence[Measured], own: Sequence[Compared], others: Sequence[Compared], originals: Path | None
) -> tuple[list[Compared], str]:
    """JPEG measured on the images of the runs, if it is published and not among them; or why there is none."""
    if not any(curve.key == JPEG for curve in others) or _own_jpeg(own) is not None:
        return [], ""
    columns = list(dict.fromkeys(column for curve in own for column in curve.points))
    curve = jpeg_here(found, columns, originals)
    return ([], curve) if isinstance(curve, str) else ([curve], "")


def _own_jpeg(curves: Sequence[Compared]) -> Compared | None:
    """JPEG as it was measured here, in the subsampling of the published one."""
    return next((c for c in curves if c.measured and (c.key == KEY or c.key.startswith(f"{JPEG} 4:2:0"))), None)


def _introduction(comparison: Comparison, wanted: Wanted, says: str) -> list[str]:
    own = comparison.measured
    parts = [f"Measured here: means over {own[0].images} image{'s' * (own[0].images != 1)}, whole files."]
    if wanted.published is not None:
        title, images = SETS[wanted.published].title, SETS[wanted.published].images
        number = "the" if images is None else f"all {images}"
        parts += [
            f"Published: means over {number} images of {title}, measured by others on other machines, so a difference "
            "has two causes, the codecs and the images. Sources are below.",
            *_offset(comparison, says),
        ]
    where = "".join(f", PSNR from {low:g} to {high:g} dB" for low, high in comparison.within.values())
    return [*parts, f"Tables: BD-rate in %, the change of rate at equal quality{where}; below 0: fewer bits."]


def _offset(comparison: Comparison, says: str) -> list[str]:
    """The same codec, measured here and published, in a sentence for each metric."""
    published_one = next((c for c in comparison.curves if c.key == JPEG and not c.measured), None)
    here = _own_jpeg(comparison.curves)
    if published_one is None:
        return []
    if here is None:
        return [f"The offset between these images and the published ones is not known. JPEG was not measured: {says}."]
    found = []
    for column, measure in comparison.measures.items():
        value, over = comparison.difference(published_one, here, column)
        if value is not None:
            found.append(f"{value:+.1f} % at equal {measure.title} ({over})")
    if not found:
        return ["JPEG measured here and as published have no quality in common, so the offset is not known."]
    return [
        f"The offset: JPEG measured here ({here.about}) against JPEG as published, {', '.join(found)}. So much "
        "of every difference between measured and published curves comes from images, machines and versions."
    ]


def _tables(comparison: Comparison) -> list[str]:
    return [part for column, m in comparison.measures.items() for part in (f"{m.title}:", table(comparison, column))]
