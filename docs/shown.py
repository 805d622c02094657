"""Run the examples of a page and compare what they print with what the page shows.

    python docs/shown.py PAGE...             says what differs; exit code 1 if anything does
    python docs/shown.py --update PAGE...    writes what is printed into the page

Blocks are run in the order of the page, in one empty folder with the repository's ``configs`` and ``plugins``: the
lines of a ``console`` block that begin with ``$ pscx``, and the code of a ``python`` block. ``...`` stands for any
text, and spaces and line breaks are all the same.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from typing import Any

from pscx.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (pscx .*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
COLUMNS = "100"


def as_printed(page: str, folder: Path) -> str:
    """The text of a page with the output of its commands as it is now; what is shown stays where that fits.

    ``folder`` is where they are run: the current folder becomes that one. Raises what an example raises.
    """
    for name in ("configs", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    os.environ["COLUMNS"] = COLUMNS
    os.chdir(folder)
    scope: dict[str, Any] = {"__name__": "example"}

    def run(block: re.Match[str]) -> str:
        if block[1] == "console":
            return f"```console\n{COMMAND.sub(_run_command, block[2])}```"
        exec(compile(block[2], "example", "exec"), scope)
        return block[0]

    return BLOCK.sub(run, page)


def _run_command(shown: re.Match[str]) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        main(shlex.split(shown[1])[1:])
    text = re.sub(r"[ \t]+$", "", printed.getvalue(), flags=re.MULTILINE)
    if _fits(shown[2], text):
        return shown[0]
    before, after = shown[2].splitlines(), text.splitlines()
    if len(before) == len(after):  # lines that still fit keep their dots
        after = [old if _fits(old, new) else new for old, new in zip(before, after, strict=True)]
    return "\n".join([f"$ {shown[1]}", *after, ""])


def _fits(shown: str, printed: str) -> bool:
    return OutputChecker().check_output(shown, printed, ELLIPSIS | NORMALIZE_WHITESPACE)


def _main(args: list[str]) -> int:
    update = args[:1] == ["--update"]
    differs = False
    for page in [Path(name).resolve() for name in args[update:]]:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            now = as_printed(text, Path(folder))
            os.chdir(ROOT)
        if now != text:
            print(f"{page.relative_to(ROOT)}: {'updated' if update else 'shows what is not printed'}")
            differs = True
            if update:
                page.write_text(now, encoding="utf-8")
    return int(differs and not update)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
