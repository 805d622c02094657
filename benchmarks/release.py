"""Run every benchmark whose figures README, docs or the prior's model card show, on one commit.

    python benchmarks/release.py --list
    python benchmarks/release.py --kodak FOLDER --bsds FOLDER [--photos FOLDER] [--python INTERPRETER] [--only NAME ...]

Each entry is a command whose result becomes ``benchmarks/results/NAME``: files that the script writes, what it prints
as ``table.md``, and ``about.json`` with commit, machine, versions, date, command and seconds. An entry is complete, and
not run again, as long as its command, its script with the scripts that it imports, and ``pscx/`` (but for its pages)
are those of its ``about.json``, and so are its images, where their folder is given. For entries whose figures follow
from streams and pictures alone, which take hours, golden streams, metrics and BD-rate take the place of ``pscx/``: as
long as they are the same, so are rates and pictures. A run that was killed goes on: scripts that keep their points find
them in ``runs/release``, under a digest of that code. Entries that need what is not given are left out. Exit code 1
where an entry failed; the others are run.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from facts import RESULTS, ROOT, as_json, facts  # found through the line above

GIVEN = {
    "kodak": "folder of Kodak's photographs",
    "bsds": "folder of BSDS500's validation photographs",
    "photos": "folder of photographs that the prior was trained on",
    "python": "interpreter that has pscx and another torch",
}
OUTPUT = "output"
ABOUT, TABLE, PRINTED = "about.json", "table.md", "printed.txt"
LEVELS = ("0.02", "0.05", "0.1", "0.2", "0.4", "0.8", "1.6")
METRICS = ("--metrics", "psnr", "ms_ssim", "ssimulacra2", "flip", "haarpsi", "gmsd")
CODECS = ("--codecs", "fast", "default", "jpeg", "jp2", "webp", "avif", "jxl")
ON_CROPS = (*CODECS, "perceptual", "avif-looks")
STEPS = ("2.2", "1.3", "0.75", "0.42", "0.24")
RANGES = ("--ranges", "0.05-0.25", "0.25-1", "0.1-0.4")
FAMILIES = ("fast", "turbo", "turbo-published", "turbo-published-kl", "diffc-ideal", "diffc-even", "ddcm-published")
OWN_ATOMS = ("diffc-chunks", "ddcm-one-atom")  # the slowest
FITTED = ("fast", "default", "best", "perceptual", "turbo")
COMPONENTS = "configs/ablations/components.yaml"
CODE = (sys.executable, "-u")
UNUSED = ("report", "demo", "comparison")  # folders of pscx that no benchmark uses (tests/test_release.py)
BAR = "━"  # progress bars are printed too
COMPLETE = "complete"


@dataclass(frozen=True)
class Entry:
    """A benchmark: what is run, what is kept of it, and where it is shown.

    ``command`` follows the interpreter. In it ``{kodak}`` and so on stand for what the user gives, ``{output}`` for the
    folder that the script writes to. ``files`` are patterns of what is kept from there. ``prints`` says whether what
    the script prints is a result. ``streams`` says that the figures are of streams, pictures and metrics alone, neither
    of time nor of memory.
    """

    name: str
    command: tuple[str, ...]
    pages: tuple[str, ...]
    cost: str
    files: tuple[str, ...] = ()
    prints: bool = True
    streams: bool = False

    @property
    def needs(self) -> list[str]:
        """What the user must give."""
        return [name for name in GIVEN if any(f"{{{name}}}" in part for part in self.command)]

    def told(self) -> str:
        """The command with names in place of what was given."""
        names = {name: name.upper() for name in (*GIVEN, OUTPUT)}
        return " ".join(["python", *(part.format(**names) for part in self.command)])


def script(name: str, *options: str) -> tuple[str, ...]:
    return (f"benchmarks/{name}.py", *options)


TO_OUTPUT = ("-o", "{output}")
CARD = "pscx/priors/embedded/README.md"
POINTS = ("points.csv", "summary.md", "*.svg")
ENTRIES = (
    Entry("prior_costs", script("prior_costs"), ("docs/priors.md",), "half a minute"),
    Entry(
        "samplers_on_gaussians",
        script("samplers_on_gaussians", *TO_OUTPUT),
        ("docs/samplers.md",),
        "half a minute",
        files=("distances.csv", "distances.svg"),
    ),
    Entry(
        "restorations",
        script("restorations", *TO_OUTPUT),
        ("docs/method.md",),
        "half a minute",
        streams=True,
    ),
    Entry("bound", script("bound"), ("docs/rows.md", "docs/method.md"), "a minute"),
    Entry("answers", script("answers"), ("docs/scaling.md", "docs/accelerators.md", "docs/rows.md"), "half a minute"),
    Entry("plugin_page", script("plugin_page", *TO_OUTPUT), ("docs/plugins.md",), "a minute"),
    Entry(
        "components",
        ("-m", "pscx", "ablate", "--config", COMPONENTS, "--trainer.default_root_dir", "{output}"),
        ("docs/ablations.md",),
        "some minutes",
        files=("summary.md", "results.csv", "*.svg", "*.png"),
        prints=False,
    ),
    Entry(
        "denoising", script("denoising", "{kodak}", "--grey", "15", "25", "50"), (CARD,), "a minute and 2 GB of memory"
    ),
    Entry(
        "denoising_crops",
        script("denoising", "{bsds}", "--levels", *LEVELS, "--crop", "128", "--limit", "32", "--float"),
        (CARD,),
        "a minute",
    ),
    Entry("exact_network", script("exact_network", "{bsds}", "--rate"), ("docs/exactness.md", CARD), "ten minutes"),
    Entry(
        "exactness",
        script("exactness", "--python", "{python}", "--scale", "0.5", "--iterations", "3"),
        ("docs/exactness.md",),
        "half an hour",
    ),
    Entry(
        "ssimulacra2_of_libjxl",
        script("ssimulacra2_of_libjxl", "{kodak}"),
        ("docs/metrics.md",),
        "some minutes; needs libjxl's tool",
        streams=True,
    ),
    Entry(
        "scaling",
        script("scaling", "--recipe", "default", "--side", "256", "--images", "8"),
        ("docs/scaling.md",),
        "ten minutes on two idle cores",
    ),
    Entry("large_images", script("large_images", "--folder", "{kodak}"), ("docs/scaling.md",), "half an hour, idle"),
    Entry(
        "megapixels",
        script("large_images", "--megapixels", "12", "--folder", "{kodak}", "--iterations", "3", "--steps", "1"),
        ("docs/scaling.md",),
        "half an hour and 4 GB of memory",
    ),
    Entry(
        "real_sizes",
        script("real_sizes", "sd21", "sdxl", "--dtype", "bf16", "--side", "256"),
        ("docs/priors.md",),
        "ten minutes, 12 GB of memory and 7 GB of disk",
    ),
    Entry(
        "exact_latents",
        script("real_sizes", "sd21", "--exact"),
        ("docs/exactness.md",),
        "ten minutes, 12 GB of memory and 4 GB of disk",
    ),
    Entry(
        "targets",
        script("targets", "{bsds}", *TO_OUTPUT, "--crop", "128", "--limit", "12"),
        ("docs/targets.md",),
        "half an hour",
        files=("targets.csv",),
        streams=True,
    ),
    Entry(
        "perception",
        script(
            *("perception", "{photos}", *TO_OUTPUT, "--recipes", *FITTED),
            *("--limit", "3", "--steps", "0.8", "0.3", "--warm-start", "0.25"),
        ),
        ("docs/restorations.md",),
        "an hour",
        streams=True,
    ),
    Entry(
        "families",
        script("families", "{bsds}", *TO_OUTPUT, "--target", "0.25"),
        ("docs/families.md",),
        "an hour",
        files=POINTS,
        prints=False,
        streams=True,
    ),
    Entry(
        "families_kodak",
        script(
            *("families", "{kodak}", *TO_OUTPUT, "--crop", "256", "--limit", "12", "--settings", "3"),
            *("--rows", *FAMILIES, *OWN_ATOMS),
        ),
        ("docs/families.md", "docs/comparison.md", "docs/results.md"),
        "some hours",
        files=POINTS,
        prints=False,
        streams=True,
    ),
    Entry(
        "rate_distortion",
        script("rate_distortion", "{kodak}", *TO_OUTPUT, *METRICS, "--crop", "256", *RANGES, *ON_CROPS),
        ("docs/results.md",),
        "two hours",
        files=POINTS,
        prints=False,
        streams=True,
    ),
    Entry(
        "kodak",
        script("rate_distortion", "{kodak}", *TO_OUTPUT, *METRICS, "--protocol", "kodak", "--steps", *STEPS, *CODECS),
        ("README.md", "docs/results.md"),
        "a day",
        files=POINTS,
        prints=False,
        streams=True,
    ),
)
"""The quick ones first."""


@cache
def package() -> str:
    """A digest of what ``pscx/`` holds, but for its texts and the folders :data:`UNUSED`."""
    files = (file for file in sorted((ROOT / "pscx").rglob("*")) if file.is_file() and file.suffix != ".md")
    left_out = {"__pycache__", *UNUSED}
    return digest(file for file in files if not left_out.intersection(file.relative_to(ROOT).parts))


@cache
def promises() -> str:
    """A digest of what keeps streams and pictures as they are, and of what measures them."""
    folders = (ROOT / "tests" / "golden", ROOT / "pscx" / "metrics")
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in {".json", ".pscx", ".py"}]
    return digest(iter(sorted([*files, ROOT / "pscx" / "evaluation" / "bd.py"])))


def digest(files: Iterator[Path]) -> str:
    """Of names and contents."""
    found = hashlib.sha256()
    for file in files:
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
        found.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def sources(file: Path) -> set[Path]:
    """A script and all scripts of benchmarks and tests that it imports, one through another."""
    found, todo = set(), {file}
    while todo:
        one = todo.pop()
        found.add(one)
        for node in ast.walk(ast.parse(one.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            places = (ROOT / folder / f"{name}.py" for name in names for folder in ("benchmarks", "tests"))
            todo |= {place for place in places if place.is_file()} - found
    return found


def code(entry: Entry) -> str:
    """A digest that changes with what an entry computes: its command, its sources and configs, and what they use."""
    named = {ROOT / part for part in entry.command if part.endswith((".py", ".yaml"))}
    files = {source for file in named for source in (sources(file) if file.suffix == ".py" else {file})}
    whole = "\n".join((*entry.command, digest(iter(sorted(files))), promises() if entry.streams else package()))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def inputs(entry: Entry, given: Mapping[str, str]) -> dict[str, str]:
    """A digest of the images of each folder that an entry reads."""
    folders = {name: Path(given[name]) for name in entry.needs if Path(given[name]).is_dir()}
    return {
        name: digest(file for file in sorted(folder.rglob("*")) if file.is_file())[:16]
        for name, folder in folders.items()
    }


def missing(entry: Entry, given: Mapping[str, str]) -> list[str]:
    """The options that an entry needs and that are not given."""
    return [f"--{name}" for name in entry.needs if name not in given]


def state(entry: Entry, given: Mapping[str, str], results: Path, work: Path) -> str:
    """``complete``, or in words what there is."""
    file = results / entry.name / ABOUT
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if known.get("code") == code(entry) and (missing(entry, given) or known["inputs"] == inputs(entry, given)):
        return COMPLETE
    words = "of other code or images" if known else "of no known commit" if file.parent.is_dir() else "not there"
    return words + (", begun" if (work / code(entry) / entry.name).is_dir() else "")


def run(entry: Entry, given: Mapping[str, str], results: Path, work: Path) -> bool:
    """Run an entry and keep its results; whether it ended well."""
    identity = {"code": code(entry), "inputs": inputs(entry, given)}  # before the run, as the facts are
    output = work / code(entry) / entry.name
    resumed = output.is_dir()
    output.mkdir(parents=True, exist_ok=True)
    before, started = facts(), time.monotonic()
    places = {**given, OUTPUT: str(output.resolve())}
    left = shown([*CODE, *(part.format(**places) for part in entry.command)], output / PRINTED)
    if left:
        print(f"{entry.name}: exit code {left}; what it printed is in {output / PRINTED}", flush=True)
        return False
    own = output / ABOUT
    told: dict[str, Any] = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    told |= before | {"command": entry.told(), "seconds": round(time.monotonic() - started), "resumed": resumed}
    told |= identity
    keep(entry, output, results / entry.name, told, places)
    return True


def shown(command: Sequence[str], file: Path) -> int:
    """Run a command; what it prints is shown as it comes, and written to a file. Returns its exit code."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with file.open("w", encoding="utf-8") as copy:
        running = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        with running:
            try:
                for line in running.stdout:
                    print(line, end="", flush=True)
                    copy.write(line)
            except BaseException:  # or it would write on beside the next run
                running.terminate()
                raise
    return running.returncode


def keep(entry: Entry, output: Path, folder: Path, told: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Put results into their folder: ``about.json`` last, which alone says that they are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    for pattern in entry.files:
        for file in sorted(output.glob(pattern)):
            shutil.copy(file, folder / file.name)
    if entry.prints:
        text = (output / PRINTED).read_text(encoding="utf-8")
        (folder / TABLE).write_text(table(text, told, places), encoding="utf-8")
    (folder / ABOUT).write_bytes(as_json(told))


def table(printed: str, told: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """What was printed, without progress bars and this machine's folders, under a line of where it is from."""
    for name, place in {**places, ".": str(ROOT)}.items():
        printed = printed.replace(place, name.upper())
    lines = "\n".join(line.rstrip() for line in printed.splitlines() if BAR not in line)
    machine, versions = told["machine"], told["versions"]
    origin = f"commit {str(told['commit'])[:7]}{'' if told['clean'] else ', changed'}, {told['date'][:10]}"
    place = f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}"
    return f"`{told['command']}`, {origin}, {place}:\n\n" + re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def main(args: Sequence[str] | None = None, entries: Sequence[Entry] = ENTRIES) -> int:
    """Run what is missing, or list it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show all entries and their state, and run nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.name for one in entries], help="these alone")
    for name, what in GIVEN.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=what)
    parser.add_argument("--results", type=Path, default=ROOT / RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "release", help="default: runs/release")
    options = parser.parse_args(args)
    given = {name: str(Path(value).absolute()) for name in GIVEN if (value := getattr(options, name)) is not None}
    for name, place in given.items():
        if not Path(place).exists():
            parser.error(f"--{name} does not exist: {place}")
    chosen = [entry for entry in entries if not options.only or entry.name in options.only]
    failed = []
    for entry in chosen:
        found, needs = state(entry, given, options.results, options.work), missing(entry, given)
        lacks = f" Needs {' '.join(needs)}." if needs else ""
        print(f"{entry.name}: {found}.{lacks} Takes {entry.cost}. Shown by {', '.join(entry.pages)}", flush=True)
        if options.list:
            print(f"    {entry.told()}")
        elif found != COMPLETE and not needs and not run(entry, given, options.results, options.work):
            failed.append(entry.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
