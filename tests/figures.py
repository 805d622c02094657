"""Figures of a Markdown page, and the committed results that they must be among (``tests/test_figures.py``).

Results are those of ``benchmarks/release.py``: folders whose ``about.json`` names the code that was measured. The dated
notes beside them are of other commits; a page may name them, but none of its figures may be from there alone.

A figure is a number with a unit of measurement in prose, or any number with a decimal point in a table. Code, links and
comments are left out. Numbers of a list or a range share their unit: "4.2 and 3.1 s" and "-7 to +30 %" have two each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

RESULTS = "benchmarks/results"
EXEMPT = Path("docs/figures.yaml")
READ = {".csv", ".json", ".md", ".txt"}  # of results: a plot's coordinates are no figures
FACTS = "about.json"  # and neither are versions and dates
OTHER = {"definition": "of", "published": "source", "example": "check"}  # why a figure is exempt, and what else is said

PLAIN = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?"
NUMBER = re.compile(rf"(?<![\w.,^])(?<![\w.]-){PLAIN}(?![\w^]|[.,]\d)|(?<=\d-){PLAIN}(?![\w^]|[.,]\d)")
BETWEEN = r"(?:,\s+|,?\s+(?:to|and|or|/)\s+|/|\s?±\s?|\s\+-\s|-)"
UNIT = r"(?:%|(?:dB|bpp|s|ms|us|MB|GB|seconds|minutes|hours|times|grey\s+levels)\b)"
MEASURED = re.compile(rf"(?<![\w.,^/+-])({PLAIN}(?:{BETWEEN}{PLAIN})*)(?:-|\s+)?{UNIT}")
LEFT_OUT = re.compile(
    r"^ *```.*?^ *```"  # blocks of code, by fences
    r"|(?<=\n\n)(?: {4}\S[^\n]*\n)+"  # and by indentation
    r"|`(?:[^`\n]|\n(?!\n))*`"
    r"|\[(?:[^][\n]|\n(?!\n))*\]\([^)\s]+\)"
    r"|<!--.*?-->",
    re.MULTILINE | re.DOTALL,
)
ROW = re.compile(r"^ *\|.*$", re.MULTILINE)
NAMED = re.compile(rf"{RESULTS}/([\w./-]*[\w/])")


@dataclass(frozen=True)
class Figure:
    """A number as a page writes it, and its line."""

    text: str
    line: int


@dataclass(frozen=True)
class Exemption:
    """Figures of a page that are no measurement of this project, and why; ``said`` is what the reason needs."""

    figures: tuple[str, ...]
    why: str
    said: str


def figures(page: str) -> list[Figure]:
    """All figures of a page, in its order."""
    text = LEFT_OUT.sub(lambda part: re.sub(r"\S", " ", part[0]), page)
    prose = ROW.sub(lambda row: " " * len(row[0]), text)
    found = set(_measured(prose, 0))
    for row in ROW.finditer(text):
        numbers = NUMBER.finditer(row[0])
        found |= {(row.start() + one.start(), one[0]) for one in numbers if "." in one[0]}
        found |= set(_measured(row[0], row.start()))
    return [Figure(number, text.count("\n", 0, place) + 1) for place, number in sorted(found)]


def _measured(text: str, start: int) -> Iterator[tuple[int, str]]:
    for run in MEASURED.finditer(text):
        for number in re.finditer(rf"(?<!\d){PLAIN}", run[1]):
            yield start + run.start() + number.start(), number[0]


def numbers(text: str) -> set[str]:
    """All numbers of a result, as they are compared."""
    return {same(number) for number in NUMBER.findall(text)}


def same(number: str) -> str:
    """A number without what may differ: a plus and commas of thousands."""
    return number.replace("+", "").replace(",", "")


def among(figure: str, known: set[str]) -> bool:
    """Whether a figure is one of the numbers: digit by digit, and of the same sign where it has one.

    "4.5 % less" may be a result of -4.5.
    """
    number = same(figure)
    return number in known or (figure[0] not in "+-" and f"-{number}" in known)


def results(page: str, root: Path = Path()) -> list[Path]:
    """The files of results that a page names, without notes; a folder stands for all that it holds.

    Raises ``ValueError`` where a named file is not there.
    """
    found: list[Path] = []
    for name in dict.fromkeys(NAMED.findall(page)):
        path = root / RESULTS / name
        if not path.exists():
            raise ValueError(f"{RESULTS}/{name} is named and does not exist")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in files if file.suffix in READ and file.name != FACTS and released(file.parent)]
    return found


def released(folder: Path) -> bool:
    """Whether a folder is a result of ``benchmarks/release.py``."""
    facts = folder / FACTS
    return facts.is_file() and "code" in json.loads(facts.read_text(encoding="utf-8"))


def known(files: Sequence[Path]) -> set[str]:
    """All numbers of these files."""
    found: set[str] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        found |= numbers(text.replace(",", " ") if file.suffix == ".csv" else text)
    return found


def exemptions(file: Path) -> dict[str, list[Exemption]]:
    """By page. Raises ``ValueError`` for an entry that lacks something, or has something else."""
    found: dict[str, list[Exemption]] = {}
    for page, entries in yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader).items():
        for entry in entries:
            why = entry.get("why")
            if why not in OTHER or entry.keys() != {"figures", "why", OTHER[why]} or not entry[OTHER[why]]:
                raise ValueError(f"{page}: {entry} needs figures, why, and {OTHER}")
            found.setdefault(page, []).append(Exemption(tuple(entry["figures"]), why, entry[OTHER[why]]))
    return found


def faults(page: str, exempt: Sequence[Exemption], root: Path = Path()) -> list[str]:
    """What is wrong with a page's figures, a sentence each; none where all is well."""
    try:
        there = known(results(page, root))
    except ValueError as error:
        return [str(error)]
    found = figures(page)
    left = {figure for entry in exempt for figure in entry.figures}
    said = [
        f"line {figure.line}: {figure.text} is in no result that the page names"
        for figure in found
        if figure.text not in left and not among(figure.text, there)
    ]
    said += [f"{figure} is exempt and not on the page" for figure in sorted(left - {one.text for one in found})]
    for entry in exempt:
        if entry.why == "published" and entry.said not in page:
            said.append(f"the source of {', '.join(entry.figures)}, {entry.said!r}, is not on the page")
        if entry.why == "example" and not (root / entry.said).is_file():
            said.append(f"{entry.said} checks {', '.join(entry.figures)} and does not exist")
    return said
