"""The tables of ``docs/plugins.md``: the page's restoration beside the mean, by the page's own files and commands.

    python benchmarks/plugin_page.py [-o runs/plugin_page]

Writes the page's first component and its ablation into the folder ``mine`` there, and runs the two evaluations and the
ablation in it. A run that was stopped goes on. Prints both tables.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

from pscx.ablation.report import markdown
from pscx.cli.main import main as pscx

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "plugins.md"
RUNS = ("mean", "median")
ENDS = ("runs/mean", "runs/median")
COLUMNS = {"images": "{}", "bytes": "{:.0f}", "bpp": "{:.3f}", "psnr": "{:.2f}", "ssim": "{:.3f}"}


def blocks(language: str) -> list[str]:
    """The page's blocks of code of one kind."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def follow(folder: Path) -> None:
    """Write the page's files, and run the commands whose results it shows."""
    (folder / "mine").mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "configs", folder / "configs", dirs_exist_ok=True)
    (folder / "mine" / "median.py").write_text(blocks("python")[0], encoding="utf-8")
    (ablation,) = (text for text in blocks("yaml") if text.startswith("# mine/ablation.yaml"))
    (folder / "mine" / "ablation.yaml").write_text(ablation, encoding="utf-8")
    os.chdir(folder)
    commands = [line for line in "".join(blocks("sh")).splitlines() if line.endswith(ENDS) or "ablation.yaml" in line]
    for line in commands:
        with redirect_stdout(sys.stderr):
            code = pscx(shlex.split(line)[1:])
        if code:
            raise SystemExit(f"failed: {line}")


def means(run: str) -> list[str]:
    """The line of a run's ``summary.csv``, as the page writes it."""
    with Path("runs", run, "summary.csv").open(newline="", encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    return [run, *(form.format(line[key] if form == "{}" else float(line[key])) for key, form in COLUMNS.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/plugin_page"))
    follow(parser.parse_args().output)
    print(markdown(["", "images", "bytes", "bpp", "PSNR (dB)", "SSIM"], [means(run) for run in RUNS]))
    table = Path("runs/ablation/summary.md").read_text(encoding="utf-8").partition("Rate at equal quality")
    print(f"\n{table[1]}{table[2].partition('![')[0]}")


if __name__ == "__main__":
    main()
