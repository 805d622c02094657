"""Captions that somebody wrote: a text beside each image, or a table."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pscx.captioners.base import CAPTIONERS, Captioner
from pscx.errors import PscxError
from pscx.runtime.safe_yaml import read_bounded

TEXT, TABLE = ".txt", ".csv"
NAME, CAPTION = "name", "caption"


@CAPTIONERS.register("file")
class File(Captioner):
    """Captions from files: ``NAME.txt`` beside each image, or one CSV for all.

    Args:
        path: none for texts beside the images; a folder with a ``NAME.txt`` for each; or a ``.csv`` file, whose first
            line names its columns, ``name`` and ``caption`` among them. A name is that of the image's file, with or
            without suffix and folders, or the image's name in its dataset.
        required: whether an image without a caption is an error; else it has none.

    Raises:
        ValueError: ``path`` is neither, or the table has not these columns, or a name twice.
    """

    references = ()

    def __init__(self, path: str | None = None, required: bool = True) -> None:
        self.folder = None if path is None else Path(path)
        self.required = required
        self.table: dict[str, str] | None = None
        if self.folder is None or self.folder.is_dir():
            return
        if self.folder.suffix.lower() != TABLE or not self.folder.is_file():
            raise ValueError(f"caption.path must be a folder or a {TABLE} file that exists, or null, got {path!r}")
        self.table = read_table(self.folder)

    def caption(self, image: NDArray[np.uint8], source: str = "") -> str:
        return self.of(source)

    def of(self, source: str) -> str:
        """The caption of an image's file, or of a name in a dataset. Raises :class:`PscxError` where it has none."""
        if not source:
            raise PscxError("the image has no file name, so caption 'file' knows no caption of it: use --caption")
        found = self._of_text(Path(source)) if self.table is None else self._of_table(self.table, PurePath(source))
        if found or not self.required:
            return found
        where = f"'{self._text(Path(source))}'" if self.table is None else f"'{self.folder}'"
        raise PscxError(f"there is no caption of '{source}' in {where}: write one, or set caption.required to false")

    def _text(self, source: Path) -> Path:
        name = f"{source.stem}{TEXT}"
        return source.with_name(name) if self.folder is None else self.folder / name

    def _of_text(self, source: Path) -> str:
        file = self._text(source)
        return " ".join(text_of(file).split()) if file.is_file() else ""

    def _of_table(self, table: dict[str, str], source: PurePath) -> str:
        """By as many folders of the name as are in the table, the most first."""
        for first in range(len(source.parts)):
            whole = PurePath(*source.parts[first:])
            for name in (whole, whole.with_suffix("")):
                if (caption := table.get(name.as_posix())) is not None:
                    return caption
        return ""


def read_table(file: Path) -> dict[str, str]:
    """Captions by name. Raises ``ValueError`` where a column is missing, or a name is there twice."""
    rows = csv.DictReader(StringIO(text_of(file), newline=""))
    missing = [column for column in (NAME, CAPTION) if column not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(
            f"'{file}' must have the columns {NAME} and {CAPTION} in its first line, and lacks {missing[0]}"
        )
    found: dict[str, str] = {}
    for row in rows:
        name = (row[NAME] or "").strip()
        if name in found:
            raise ValueError(f"'{file}' has the name '{name}' twice, again in line {rows.line_num}")
        found[name] = " ".join((row[CAPTION] or "").split())
    return found


def text_of(file: Path) -> str:
    """The content of a file of text. Raises :class:`PscxError` where it is not UTF-8."""
    try:
        return read_bounded(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PscxError(f"'{file}' is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise PscxError(f"cannot read '{file}': {error.strerror or error}") from error
