"""From the arguments of a command to its jobs: which input becomes which output."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pscx.cli.standard import STANDARD, check_standard_output, is_standard_output, named
from pscx.errors import PscxError
from pscx.runtime.files import ExistsError, check_folder, check_output
from pscx.runtime.printing import printable
from pscx.runtime.run_folder import is_run_folder
from pscx.runtime.walk import Found, walk


@dataclass(frozen=True)
class Output:
    """What ``-o`` names; ``folder`` where the text itself says that it is one, by a slash at its end."""

    path: Path
    folder: bool

    @classmethod
    def of(cls, text: str) -> Output:
        """Raises ``ValueError`` for an empty text."""
        ends = [f"{separator}{dot}" for separator in (os.sep, os.altsep) if separator for dot in ("", ".", "..")]
        return cls(named(text), text in (".", "..") or text.endswith(tuple(ends)))


@dataclass(frozen=True)
class Rule:
    """How a command takes its inputs and names its outputs.

    Args:
        inputs: extensions of the files that are taken from a folder, in lower case.
        kind: name of these files in messages.
        takes_runs: whether the folder of a run may be an input.
        outputs: extensions that mark a name as that of a file.
        names: the names of the outputs, given the input's name without its extension.
        numbered: the outputs, where the user gave one name.
        check: raises :class:`PscxError` for an output that must not have its name.
    """

    inputs: Collection[str]
    kind: str
    takes_runs: bool = True
    outputs: Collection[str] = ()
    names: Callable[[str], list[str]] = lambda stem: []
    numbered: Callable[[Path], list[Path]] = lambda path: [path]
    check: Callable[[Path], None] = lambda path: None


@dataclass(frozen=True)
class Source:
    """An input, and its path below the folder that it was found in: its name, where it was given itself."""

    path: Path
    place: Path


@dataclass(frozen=True)
class Job:
    """One input and the outputs that it becomes; ``named`` where the user said the name of these."""

    source: Path
    outputs: list[Path] = field(default_factory=list)
    named: bool = False

    @property
    def rereadable(self) -> bool:
        """Whether the input can be read more than once."""
        return self.source != STANDARD and os.path.isfile(self.source)


@dataclass
class Todo:
    """The jobs that can begin, those with an output that exists already, and how many inputs were refused."""

    jobs: list[Job]
    existing: list[Job]
    failed: int


def plan(inputs: Sequence[Path], output: Output | None, rule: Rule, *, force: bool) -> Todo:
    """The jobs of a command; what is wrong with single inputs or outputs is said on stderr, each in one line.

    Raises :class:`PscxError` for what concerns all of them: an output that is an input, or that two inputs would
    become, a file in place of a folder, more than one file for standard output.
    """
    given, notices = sources(inputs, rule)
    several = len(inputs) > 1 or any(_is_folder(path) for path in inputs)
    jobs = _jobs(given, several, output, rule)
    say(notices)
    result = Todo([], [], 0)
    for job in jobs:
        try:
            check_source(job.source)
            for path in job.outputs:
                check_standard_output() if path == STANDARD else check_output(path, force=force)
            result.jobs.append(job)
        except PscxError as error:
            if isinstance(error, ExistsError) and not job.named:
                result.existing.append(job)
                continue
            say([f"pscx: {error}"])
            result.failed += 1
    return result


def sources(inputs: Sequence[Path], rule: Rule) -> tuple[list[Source], list[str]]:
    """All input files, folders opened up, and a line about each folder of which something was left out."""
    if STANDARD in inputs and len(inputs) > 1:
        raise PscxError("'-', standard input, must be the only input")
    given: list[Source] = []
    notices: list[str] = []
    for path in inputs:
        if not _is_folder(path):
            given.append(Source(path, Path(path.name)))
            continue
        found = _opened(path, rule)
        given += [Source(file, file.relative_to(path)) for file in found.files]
        notices += [found.notice] if found.notice else []
    return given, notices


def say(lines: Iterable[str]) -> None:
    """Print lines on stderr."""
    for line in lines:
        print(printable(line), file=sys.stderr, flush=True)


def check_source(path: Path) -> None:
    """Raise :class:`PscxError` where an input is not there or cannot be reached."""
    try:
        if path != STANDARD:
            os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise PscxError(f"no such file: '{path}'") from None
    except OSError as error:
        raise PscxError(f"cannot read '{path}': {error.strerror or error}") from error


def refuse_existing(jobs: Iterable[tuple[Job, str]]) -> int:
    """Say on stderr, one line for each reason, which outputs exist already and are left as they are; their number."""
    reasons: dict[str, list[Job]] = defaultdict(list)
    for job, reason in jobs:
        reasons[reason].append(job)
    for reason, alike in reasons.items():
        first = next(path for path in alike[0].outputs if os.path.lexists(path))
        more = f" ({len(alike) - 1} more likewise)" if alike[1:] else ""
        said = f"'{first}' exists already{reason and ' and '}{reason}{more}"
        say([f"pscx: {said}: give --force to overwrite it, or choose another name"])
    return sum(map(len, reasons.values()))


def _is_folder(path: Path) -> bool:
    return path != STANDARD and os.path.isdir(path)


def _opened(folder: Path, rule: Rule) -> Found:
    if not rule.takes_runs and is_run_folder(folder):
        raise PscxError(f"'{folder}' holds the results of a pscx run, which are no input: name a subfolder")
    found = walk(folder, rule.inputs)
    if not found.files:
        raise PscxError(f"'{folder}' holds no {rule.kind}{found.left_out and f'; left out: {found.left_out}'}")
    return found


def _jobs(given: list[Source], several: bool, output: Output | None, rule: Rule) -> list[Job]:
    """Pair each input with the file that was named, with one below the folder that was named, or one beside it."""
    if output is None and given[0].path == STANDARD:
        output = Output(STANDARD, folder=False)
    folder = _folder(output, several, rule)
    if output is not None and folder is None:
        jobs = [Job(source.path, _named(output.path, several, rule), named=True) for source in given]
    else:
        for source in given:
            _check_has_name(source.path)
        jobs = list(_placed(given, folder, rule))
    return _unique(jobs)


def _folder(output: Output | None, several: bool, rule: Rule) -> Path | None:
    """The folder for all outputs; none where they lie beside their inputs or the output is one file."""
    if output is None or output.path == STANDARD:
        return None
    is_folder = os.path.isdir(output.path)
    if not (output.folder or is_folder or several) or is_standard_output(output.path):
        return None
    if not is_folder and os.path.lexists(output.path):
        needs = "several inputs need a folder as output" if several else "a slash at its end means a folder"
        raise PscxError(f"'{output.path}' is a file: {needs}")
    if not is_folder and not output.folder and output.path.suffix.lower() in rule.outputs:
        raise PscxError(f"'{output.path}' is the name of a file: several inputs need a folder as output")
    check_folder(output.path, output.path)
    return output.path


def _named(path: Path, several: bool, rule: Rule) -> list[Path]:
    if path == STANDARD or is_standard_output(path):
        if several or len(rule.numbered(path)) > 1:
            raise PscxError(f"'{path}' is standard output, which takes one file: give a folder with -o")
        return [STANDARD]
    if not _is_special(path):  # it is refused later
        rule.check(path)
    return rule.numbered(path)


def _check_has_name(path: Path) -> None:
    if path == STANDARD or _is_special(path):
        raise PscxError(f"'{path}' is not a regular file: name the output with -o (- is standard output)")


def _is_special(path: Path) -> bool:
    """Whether a path is there and no regular file, such as a pipe."""
    return os.path.exists(path) and not os.path.isfile(path)


def _placed(given: list[Source], folder: Path | None, rule: Rule) -> Iterator[Job]:
    """Inputs in one folder whose names differ in the extension alone keep it in the names of their outputs."""

    def outputs(source: Source, stem: str) -> list[Path]:
        parent = source.path.parent if folder is None else folder / source.place.parent
        return [parent / name for name in rule.names(stem)]

    owners: dict[Path, set[str]] = defaultdict(set)
    for source in given:
        first, real = outputs(source, source.path.stem)[0], os.path.realpath(source.path)
        if os.path.realpath(first) != real:  # otherwise it is refused later
            owners[first].add(real)
    for source in given:
        short = outputs(source, source.path.stem)
        yield Job(source.path, short if len(owners[short[0]]) < 2 else outputs(source, source.path.name))


def _unique(jobs: list[Job]) -> list[Job]:
    """Each job once. Raises where an output is an input, or two inputs would become one."""
    inputs = {os.path.realpath(job.source) for job in jobs if job.source != STANDARD}
    taken: dict[Path, Path] = {}
    unique = []
    for job in jobs:
        for path in job.outputs:
            if path != STANDARD and os.path.realpath(path) in inputs:
                both = f"'{path}' is an input and also the output of '{job.source}'"
                raise PscxError(f"{both}: give another name with -o")
        others = {taken[path] for path in job.outputs if path in taken}
        if any(os.path.realpath(other) != os.path.realpath(job.source) for other in others):
            other = min(others)
            raise PscxError(f"'{other}' and '{job.source}' would both become '{job.outputs[0]}': run them one by one")
        if not others:
            taken |= dict.fromkeys(job.outputs, job.source)
            unique.append(job)
    return unique
