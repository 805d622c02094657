"""Which files of a folder are taken: one rule for images and for streams."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pscx.runtime.run_folder import is_run_folder

EXAMPLES = 3
Identity = tuple[int, int]


@dataclass
class Found:
    """The files of a folder, sorted by path, and how many things of each kind were left out.

    ``others`` counts the extensions, in lower case, of files that are not taken.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    hidden: int = 0
    runs: int = 0
    loops: int = 0
    unreadable: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @property
    def left_out(self) -> str:
        """What was left out, in words; empty where nothing was."""
        often_first = sorted(self.others, key=lambda suffix: (-self.others[suffix], suffix))
        examples = [suffix or "none" for suffix in often_first[:EXAMPLES]]
        more = ", ..." if len(self.others) > EXAMPLES else ""
        counts = {
            "hidden": self.hidden,
            f"with other extensions ({', '.join(examples)}{more})": self.others.total(),
            _plural("folder", self.runs, " of results of pscx"): self.runs,
            _plural("link", self.loops, " to a folder that is taken already"): self.loops,
            "unreadable": self.unreadable,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    @property
    def notice(self) -> str:
        """One line that says what was left out; empty where nothing was."""
        return f"pscx: '{self.root}': left out {self.left_out}" if self.left_out else ""


def walk(root: Path, suffixes: Collection[str]) -> Found:
    """Every file under the folder ``root`` whose extension is one of ``suffixes`` (lower case), in any case.

    Hidden files and folders are left out, and the folders of runs below ``root``. Links to files and folders are
    followed. A folder is taken once: by its own path, or else by the first link to it. A link to a folder that
    contains ``root`` is left out. ``root`` itself is taken whatever its name.
    """
    found = Found(root)
    above = {_identity(os.stat(folder)) for folder in root.resolve().parents}
    seen: set[Identity] = set()
    links = [root]
    while links:  # files below a folder come before files that it links to
        links = [link for folder in links for link in _tree(folder, found, suffixes, seen, above)]
    found.files.sort()
    return found


def _tree(
    folder: Path, found: Found, suffixes: Collection[str], seen: set[Identity], above: set[Identity]
) -> list[Path]:
    """Take the files of one tree; returns the links to folders that were met in it, sorted."""
    links: list[Path] = []
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            identity = _identity(os.stat(here))
            if identity in seen or identity in above:
                found.loops += 1
                continue
            seen.add(identity)
            if here != found.root and is_run_folder(here):
                found.runs += 1
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    _sort_in(entry, here / entry.name, found, suffixes, pending, links)
        except OSError:
            found.unreadable += 1
    return sorted(links)


def _sort_in(
    entry: os.DirEntry[str],
    path: Path,
    found: Found,
    suffixes: Collection[str],
    pending: list[Path],
    links: list[Path],
) -> None:
    if entry.name.startswith("."):
        found.hidden += 1
    elif os.path.isdir(path):  # false for a circular link, unlike that of the entry
        (links if entry.is_symlink() else pending).append(path)
    elif path.suffix.lower() not in suffixes:
        found.others[path.suffix.lower()] += 1
    elif os.path.isfile(path):
        found.files.append(path)
    else:
        found.unreadable += 1


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _plural(noun: str, count: int, rest: str) -> str:
    return f"{noun}{'' if count == 1 else 's'}{rest}"
