"""The folder of a run: its marker, its lock and its versions."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pscx.errors import PscxError
from pscx.runtime.printing import complain

MARKER = ".pscx-run"
VERSION = 1
TABLES = ("images.csv", "summary.csv", "left_out.csv", "metrics.json")
RESULTS = (
    *(*TABLES, "streams", "reconstructions", "records", "observations", "calibration.csv", "rows.csv", "prior"),
    *("cells", "results.csv"),
)
"""What runs leave behind; a folder without any of these is free."""
CONFIGS = (
    *("config.yaml", "codec.yaml", "posterior.yaml", "static.yaml", "adaptive.yaml", "rows.yaml", "curve.yaml"),
    "recipes/fitted.yaml",
)
"""What runs write beside that; in a folder of no run these are the user's own, and are not written over."""
LOCKED = (errno.EWOULDBLOCK, errno.EACCES)  # errors of flock for a file that another process has locked
PATIENCE = 1.0  # seconds to wait for another process to write the marker that it has locked


@dataclass(frozen=True)
class Identity:
    """The identity of a run: a digest of its configuration and a digest of its data."""

    configuration: str
    data: str

    def difference(self, other: Identity | None) -> str:
        """How ``other``, the earlier run, differs, in words; ``other`` is none if its marker is damaged."""
        if other is None:
            return "of unknown origin"
        return "of other data" if self.configuration == other.configuration else "of another configuration"


def is_run_folder(folder: Path) -> bool:
    """Whether ``folder`` holds the results of a run, also after it was moved or copied."""
    return (folder / MARKER).is_file()


def mark(folder: Path) -> None:
    """Mark a folder of several runs, so that nothing below it is read as data."""
    if not is_run_folder(folder):
        marker = _open(folder)
        try:
            _mark(marker, Identity("several", "several"), folder)
        finally:
            os.close(marker)


def remove_tables(folder: Path) -> None:
    """Remove the tables of an evaluation: the streams beside them are about to change."""
    for name in TABLES:
        with suppress(FileNotFoundError):
            (folder / name).unlink()


class RunFolder:
    """The folder of a run: marked, and locked until :meth:`release`.

    ``is_new`` says whether it held no results; ``before`` says why it is not the requested folder.
    """

    def __init__(self, path: Path, marker: int, is_new: bool, before: str | None = None) -> None:
        self.path, self.is_new, self.before = path, is_new, before
        self._marker = marker

    def release(self) -> None:
        """Unlock the folder, and remove it if it is empty."""
        with suppress(OSError):
            if os.listdir(self.path) == [MARKER]:
                (self.path / MARKER).unlink()
                self.path.rmdir()
        os.close(self._marker)


def take(root: Path, identity: Identity, versions: bool = True) -> RunFolder:
    """Mark and lock ``root`` for a run, or the first of ``root-1``, ``root-2``, ... that may be taken.

    A folder may be taken that a run of the same ``identity`` has had, or that holds no results. Without ``versions``
    it is ``root`` in any case, and the tables of a run of another identity are removed.

    Raises:
        PscxError: another process works in the folder, or it cannot be written.
    """
    if root.name in ("", ".."):  # which has no versions beside it by that name
        root = Path(os.path.abspath(root))
    for path in _versions(root, identity) if versions else [root]:
        if versions and not is_run_folder(path) and _holds(path, RESULTS + CONFIGS):
            continue
        marker, locked = _locked(path)
        try:
            found = _identity(marker, patient=not locked)
            same = found == identity
            if not locked and (same or not versions):
                raise PscxError(
                    f"another pscx run is using '{path}': wait until it is done, or choose another folder with "
                    "trainer.default_root_dir"
                )
            free = locked and not _holds(path, RESULTS)
            if locked and (same or free or not versions):
                if not same:
                    remove_tables(path)
                    _mark(marker, identity, path)
                return RunFolder(path, marker, free, None if path == root else _why_not(root, identity))
        except BaseException:
            os.close(marker)
            raise
        os.close(marker)
    raise AssertionError("there is always another version")


def check_name(root: Path) -> None:
    """Raise :class:`PscxError` if the file system can have no folder of that name, or has a file there."""
    try:
        mode = os.stat(root).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # a name that is too long, or that holds a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise PscxError(f"trainer.default_root_dir cannot be '{root}': {reason}") from error
    if not stat.S_ISDIR(mode):
        raise PscxError(f"trainer.default_root_dir must be a folder, but '{root}' is a file")


def _why_not(root: Path, identity: Identity) -> str:
    if not root.exists():
        return f"'{root}' is gone"
    return f"'{root}' holds a run {identity.difference(_read(root))}"


def _versions(root: Path, identity: Identity) -> Iterator[Path]:
    """Candidate folders in order: those of the same run, then all."""
    if _read(root) == identity:
        yield root
    numbers = [path.name.removeprefix(f"{root.name}-") for path in root.parent.glob("*") if path.is_dir()]
    known = sorted(int(number) for number in numbers if number.isdecimal())
    for number in known:
        version = root.with_name(f"{root.name}-{number}")
        if _read(version) == identity:
            yield version
    yield root
    number = 0
    while True:
        number += 1
        yield root.with_name(f"{root.name}-{number}")


def _open(folder: Path) -> int:
    path = folder / MARKER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise PscxError(f"cannot write '{path}': {error.strerror or error}") from error


def _locked(folder: Path) -> tuple[int, bool]:
    """The open marker of a folder, and whether this process holds its lock.

    A run that ends may remove the marker (:meth:`RunFolder.release`) before it is locked here: then it is made again.
    """
    while True:
        marker = _open(folder)
        locked = _lock(marker, folder)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(marker), os.stat(folder / MARKER)):
                return marker, locked
        os.close(marker)


def _lock(marker: int, folder: Path) -> bool:
    """Lock a marker. False if another process holds the lock; a lock ends with its process, so none is stale."""
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in LOCKED:
            return False
        text = f"'{folder}' cannot be locked ({error.strerror}): see to it that no other run works there"
        complain(f"warning: {text}")
    return True


def _mark(marker: int, identity: Identity, folder: Path) -> None:
    """Written in place, because a new file of that name would not be locked.

    Raises :class:`PscxError` where that fails, such as on a full disk. A marker that marks nothing is then removed.
    """
    try:
        os.ftruncate(marker, 0)
        os.pwrite(marker, json.dumps({"version": VERSION, **asdict(identity)}).encode(), 0)
        os.fsync(marker)
    except OSError as error:
        with suppress(OSError):
            if not _holds(folder, RESULTS):
                (folder / MARKER).unlink()
                folder.rmdir()
        raise PscxError(f"cannot write '{folder / MARKER}': {error.strerror or error}") from error


def _identity(marker: int, patient: bool) -> Identity | None:
    """The identity in a marker, or none. If another process has locked the marker, wait a little for it."""
    end = time.monotonic() + PATIENCE
    while not (data := os.pread(marker, 4096, 0)) and patient and time.monotonic() < end:
        time.sleep(0.02)
    return _parsed(data)


def _read(folder: Path) -> Identity | None:
    try:
        return _parsed((folder / MARKER).read_bytes())
    except OSError:
        return None


def _parsed(data: bytes) -> Identity | None:
    try:
        content = json.loads(data)
        return Identity(str(content["configuration"]), str(content["data"])) if content["version"] == VERSION else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _holds(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).exists() for name in names)
