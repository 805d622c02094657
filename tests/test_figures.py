"""Every figure of README, docs and the prior's model card is in a committed result that the same page names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from figures import EXEMPT, RESULTS, Exemption, among, exemptions, faults, figures, known, numbers, results

GENERATED = {"components", "modules"}
DOCS = [page for page in sorted(Path("docs").rglob("*.md")) if not GENERATED & set(page.parts)]
PAGES = [Path("README.md"), *DOCS, Path("pscx/priors/embedded/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_figure_is_in_a_result(page: Path) -> None:
    """Else name the result on the page, measure again, or say in ``docs/figures.yaml`` why there is none."""
    found = faults(page.read_text(encoding="utf-8"), exemptions(EXEMPT).get(str(page), ()))
    if found:
        pytest.fail("\n".join(f"{page}, {fault}" for fault in found), pytrace=False)


def test_exemptions_are_of_pages() -> None:
    assert exemptions(EXEMPT).keys() <= {str(page) for page in PAGES}


def test_a_changed_digit_of_a_page_is_seen() -> None:
    """Of figures of three digits or more, most: another digit may be in the page's results by chance."""
    seen = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        exempt = {figure for entry in exemptions(EXEMPT).get(str(page), ()) for figure in entry.figures}
        there, lines = known(results(text)), text.split("\n")
        for figure in figures(text):
            if figure.text not in exempt and len(re.findall(r"\d", figure.text)) >= 3:
                changed = figure.text[:-1] + str((int(figure.text[-1]) + 5) % 10)
                line = lines[figure.line - 1].replace(figure.text, changed)
                assert changed in [one.text for one in figures(f"{line}\n{lines[figure.line]}")]
                seen.append(not among(changed, there))
    assert len(seen) > 100
    assert sum(seen) > 0.6 * len(seen), (sum(seen), len(seen))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It takes 4.2 and 3.1 s.", ["4.2", "3.1"]),
        ("between -7 to +30 % of it", ["-7", "+30"]),
        ("levels 0.69, 0.27 and 0.18 % larger", ["0.69", "0.27", "0.18"]),
        ("1,234 MB, 12,345.5 seconds", ["1,234", "12,345.5"]),
        ("over 26-35 dB, or 3/4 dB", ["26", "35", "3", "4"]),
        ("30 +- 2 minutes, 5±1 ms", ["30", "2", "5", "1"]),
        ("takes 3.3\nGB in all, 2 GB-hungry, a 15 MB page", ["3.3", "2", "15"]),
        ("5 steps, 3 samples, 2 s, a 7-bit word, 512x512 pixels", ["2"]),
        ("8e89a09 %, 2^24 times, x1 dB, v2 dB, 1.2.3 dB", []),
        ("`0.5 dB`, `two\nlines of 3 %`, [4 %](page.md) and\n\n    pscx --bpp 5 dB\n\n```\n6 dB\n```\n", []),
        ("<!-- 5 dB -->", []),
        ("| a | 0.90 | 5 |\n|---|---|---|\n| 3 % | +1.50 to 2 dB | `7.5` |", ["0.90", "3", "+1.50", "2"]),
        ("| torch 2.13.0 | Apache-2.0 | 2.05e8 | 1,234.5 | [-0.3, +0.4] |", ["2.05e8", "1,234.5", "-0.3", "+0.4"]),
    ],
)
def test_figures_of_a_text(text: str, expected: list[str]) -> None:
    assert [figure.text for figure in figures(text)] == expected


def test_lines_are_counted() -> None:
    page = "# Page\n\n```\n5 dB\n```\n\nIt has 3 and\n4 dB.\n\n| 0.5 |\n"
    assert [(figure.text, figure.line) for figure in figures(page)] == [("3", 7), ("4", 8), ("0.5", 10)]


@pytest.mark.parametrize(
    ("figure", "result", "same"),
    [
        ("4.5", "| -4.5 % |", True),  # "4.5 % less"
        ("-4.5", "| 4.5 % |", False),
        ("-4.5", "| +4.5 % |", False),
        ("+4.5", "4.5 % more", True),
        ("1,234", "1234 bytes", True),
        ("0.5", "0.50 dB", False),
        ("0.5", "0.51 dB, 10.5 dB, 0.5.1, v0.5", False),
        ("0.3", "0.2-0.3 dB", True),
    ],
)
def test_the_same_number(figure: str, result: str, same: bool) -> None:
    assert among(figure, numbers(result)) is same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the results ``runs/`` (table, CSV file, plot, facts) and ``more/``, and the note ``other.md``."""
    root = tmp_path / RESULTS
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "table.md").write_text("| fast | 31.93 dB | 10 % |\n")
    (root / "runs" / "points.csv").write_text("name,psnr,bytes\na,31.25,512\n")
    (root / "runs" / "psnr.svg").write_text("<path d='77.7'/>")
    (root / "runs" / "about.json").write_text('{"seconds": 88.8, "code": "0"}')
    (root / "more").mkdir()
    (root / "more" / "table.md").write_text("66.6 dB\n")
    (root / "more" / "about.json").write_text('{"code": "1"}')
    (root / "other.md").write_text("99.9 dB\n")
    return tmp_path


def test_a_page_and_its_results(folder: Path) -> None:
    page = f"31.93 dB, 31.25 dB (`{RESULTS}/runs/`)."
    assert faults(page, [], folder) == []
    assert faults(page.replace("31.93", "31.94"), [], folder) == ["line 1: 31.94 is in no result that the page names"]
    for number in ("77.7", "88.8", "66.6"):  # a plot, facts, and a result that the page does not name
        assert faults(f"{page} {number} dB", [], folder) == [f"line 1: {number} is in no result that the page names"]
    assert faults(f"{page} [More]({RESULTS}/more/table.md): 66.6 dB", [], folder) == []
    assert faults(f"{page} [Others]({RESULTS}/other.md): 99.9 dB", [], folder) != []  # a note
    (folder / RESULTS / "more" / "about.json").write_text("{}")
    assert faults(f"{page} [More]({RESULTS}/more/table.md): 66.6 dB", [], folder) != []  # not of release.py
    assert faults(f"`{RESULTS}/runs/table.md`: 31.25 dB", [], folder) != []  # of another file of the folder
    assert faults(f"`{RESULTS}/none.md`.", [], folder) == [f"{RESULTS}/none.md is named and does not exist"]


def test_exemptions(folder: Path) -> None:
    page = "By its authors: 5 dB. A step of 6 dB."
    published = Exemption(("5",), "published", "its authors")
    defined = Exemption(("6",), "definition", "a constant")
    assert faults(page, [published, defined], folder) == []
    assert faults(page, [defined], folder) == ["line 1: 5 is in no result that the page names"]
    assert faults("6 dB", [published, defined], folder) == [
        "5 is exempt and not on the page",
        "the source of 5, 'its authors', is not on the page",
    ]
    example = Exemption(("5",), "example", "tests/test_none.py")
    assert faults(page, [example, defined], folder) == ["tests/test_none.py checks 5 and does not exist"]


@pytest.mark.parametrize(
    "entry",
    [
        "{figures: [1.0], why: guess, of: it}",
        "{figures: [1.0], why: definition}",
        "{figures: [1.0], why: published, of: it}",
        "{figures: [1.0], why: example, check: ''}",
        "{figures: [1.0], why: definition, of: it, line: 3}",
    ],
)
def test_an_exemption_says_why(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.yaml"
    file.write_text(f"page.md:\n- {entry}\n")
    with pytest.raises(ValueError, match=r"page\.md"):
        exemptions(file)
    file.write_text("page.md:\n- {figures: [1.0, 0.10], why: definition, of: it}\n")
    assert exemptions(file) == {"page.md": [Exemption(("1.0", "0.10"), "definition", "it")]}
