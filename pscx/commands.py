"""The commands on files. Each checks its inputs and outputs before any work begins, and treats files one by one."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from pscx.errors import PscxError, StreamError
from pscx.files import check_output, write_whole
from pscx.info import stream_info
from pscx.progress import Bar, Bars
from pscx.quiet import quiet
from pscx.stream import unpack

if TYPE_CHECKING:
    from pscx.ablation import Launcher

SUFFIX = ".pscx"
TARGETS = ("quality", "bpp", "psnr", "max_bytes", "step")
STREAM_SIZE_LIMIT = 1 << 30
SMALL = 1 << 14  # pixels: up to this, a call of the network costs more than its arithmetic


@dataclass(frozen=True)
class Job:
    """One input and the outputs that it becomes."""

    source: Path
    outputs: list[Path]


def compress(options: Namespace, rest: list[str]) -> int:
    """``pscx compress``: prints name, bytes and bpp of each stream."""
    from pscx.config import option_layer, split_options

    seed = [] if options.seed is None else ["--model.seed", options.seed]
    layers, unknown = split_options([*_codec_options(options), *seed, *rest])
    given = [layer for layer in layers if layer.source[:2] == "--"]
    foreign = [layer.source for layer in given if layer.values.keys() - {"recipe", "model"}]
    if unknown or foreign:
        raise PscxError(f"compress has no option '{[*unknown, *foreign][0]}': see pscx compress --help")
    if options.caption is not None:
        layers.append(option_layer("model.caption", {"name": "fixed", "text": options.caption}))
    wanted = {name: value for name in TARGETS if (value := getattr(options, name)) is not None}
    layers += [option_layer("model.target", {"name": name, "value": value}) for name, value in wanted.items()]
    sources, folder = _sources(options.inputs, _image_files)
    names = [source.with_suffix(SUFFIX).name for source in sources]
    jobs = _jobs(sources, [[name] for name in names], options.output, folder, options.force)

    jobs, missing = _present(jobs)
    if not jobs:
        return 2

    from pscx.imagecodec import build_codec
    from pscx.images import image_sides, read_image

    with quiet():
        codec = build_codec(layers)

    def work(job: Job, bar: Bar) -> str:
        pixels = read_image(job.source)
        on_trial = None if codec.target is None else bar.trial
        encoded = codec.encode(pixels, progress=bar.advance, on_trial=on_trial)
        data, count = encoded.data, encoded.account.encodings
        write_whole(job.outputs[0], data, force=options.force)
        height, width = pixels.shape[:2]
        says = f"{job.outputs[0]}: {len(data)} bytes, {8 * len(data) / (height * width):.4f} bpp"
        return f"{says}, {count} encodings" if count > 1 else says

    def shares(job: Job) -> bool:
        return codec.shares_calls and (options.batch is not None or _is_small(image_sides(job.source)))

    return _each("compress", jobs, work, missing, _batch(options, jobs), shares)


def decompress(options: Namespace, rest: list[str]) -> int:
    """``pscx decompress``: prints the name of each image."""
    sources, folder = _sources(options.inputs, _stream_files)
    count = options.samples
    ends = [""] if count == 1 else [f"-{index}" for index in range(count)]
    names = [[f"{source.stem}{end}.png" for end in ends] for source in sources]
    jobs = _jobs(sources, names, options.output, folder, options.force)

    jobs, missing = _present(jobs)
    if not jobs:
        return 2

    from pscx.imagecodec import Decompressor
    from pscx.images import check_image_suffix, write_image
    from pscx.limits import Limits

    for output in (output for job in jobs for output in job.outputs):
        check_image_suffix(output)
    limits = Limits(memory=None if options.memory is None else int(options.memory * 1e9))
    decompressor = Decompressor(prior_path=options.prior, limits=limits)

    partial = options.partial or options.max_bytes is not None

    def work(job: Job, bar: Bar) -> str:
        data = _read_stream(job.source, options.max_bytes, partial)
        done = decompressor.decode(data, range(count), partial=partial, progress=bar.advance)
        if done.cut:
            used = f"{done.segments} of {done.iterations} segments used"
            print(f"pscx: '{job.source}': {used}: {done.cut}", file=sys.stderr)
        for output, image in zip(job.outputs, done.images, strict=True):
            write_image(output, image, force=options.force)
        return "\n".join(map(str, job.outputs))

    def shares(job: Job) -> bool:
        try:
            header = unpack(_read_stream(job.source, options.max_bytes, partial), partial=True)[0]
        except PscxError:  # which the work will report
            return False
        return header.exact and (options.batch is not None or _is_small((header.width, header.height)))

    with quiet():
        return _each("decompress", jobs, work, missing, _batch(options, jobs), shares)


def info(options: Namespace, rest: list[str]) -> int:
    """``pscx info``: the header of each stream, as text or JSON."""

    def work(job: Job, bar: Bar) -> str:
        facts = stream_info(_read_stream(job.source))
        if options.json:
            return json.dumps({"file": str(job.source), **facts})
        return f"{job.source}\n" + "\n".join(f"  {line}" for line in _lines(facts))

    sources, _ = _sources(options.inputs, _stream_files)
    return _each("info", [Job(source, []) for source in sources], work)


def components(options: Namespace, rest: list[str]) -> int:
    """``pscx components``: what there is to choose from, as text or JSON."""
    from pscx.catalogue import as_text, facts, select

    entries, whole = select(options.name, options.kind)
    if options.json:
        print("\n".join(json.dumps(facts(entry)) for entry in entries))
    else:
        print(as_text(entries, whole=whole))
    return 0


def ablate(options: Namespace, rest: list[str]) -> int:
    """``pscx ablate``: runs the cells that are not done, then prints and writes tables and plots.

    Exit code 1 if any failed, 2 if images were left out of any.
    """
    from pscx.ablation import read_plan, read_results
    from pscx.ablation.report import write_report
    from pscx.config import split_options

    layers, unknown = split_options(["--config", options.config, *rest])
    if unknown:
        raise PscxError(f"ablate has no option '{unknown[0]}': see pscx ablate --help")
    launcher = _launcher(options)
    with quiet():
        plan = read_plan(layers)
    cells = {cell.id: cell for cell in plan.cells}
    to_do = {key: cell for key, cell in cells.items() if read_results(cell.folder) is None}
    if options.dry_run:
        for cell in cells.values():
            print(f"{'to do' if cell.id in to_do else 'done '}  {cell.id}  {cell.name}")
        print(f"{len(cells)} cells, {len(to_do)} to do")
        return 0
    errors = {}
    for count, outcome in enumerate(launcher(to_do.values()) if to_do else (), 1):
        cell, means = outcome.cell, read_results(outcome.cell.folder, left_out=True)
        says = f"{outcome.seconds:.1f} s"
        if outcome.error is not None:
            errors[cell.id] = outcome.error
            says = f"failed: {outcome.error}"
        elif means is not None:
            says = f"{means.mean('bpp'):.4g} bpp, {means.mean('psnr'):.4g} dB, {says}"
            says += f", {means.left_out} left out (see '{cell.folder / 'left_out.csv'}')" if means.left_out else ""
        print(f"pscx: cell {count} of {len(to_do)} ({cell.name}): {says}", file=sys.stderr, flush=True)
    found = {key: read_results(cell.folder, left_out=True) for key, cell in cells.items()}
    results = {key: result for key, result in found.items() if result is not None}
    print(write_report(plan, results, errors))
    return 1 if errors else 2 if any(result.left_out for result in results.values()) else 0


def cite(options: Namespace, rest: list[str]) -> int:
    """``pscx cite``: prints the BibTeX entries of a config's or a recipe's parts."""
    from pscx.citations import bibliography
    from pscx.config import split_options

    layers, unknown = split_options([*_codec_options(options), *rest])
    if unknown:
        raise PscxError(f"cite has no option '{unknown[0]}': see pscx cite --help")
    with quiet():
        found = bibliography(layers)
    print("\n\n".join(found))
    return 0


def _launcher(options: Namespace) -> Launcher:
    """What runs the cells of an ablation. Raises :class:`PscxError` where options are not of that launcher."""
    from pscx.ablation import RayLauncher, run_here

    names = {"address": "ray_address", "cpus": "cpus_per_cell", "gpus": "gpus_per_cell"}
    given = {key: value for key, name in names.items() if (value := getattr(options, name)) is not None}
    if options.launcher == "ray":
        return RayLauncher(**given)
    if given:
        name = names[next(iter(given))].replace("_", "-")
        raise PscxError(f"option --{name} is for --launcher ray, got --launcher {options.launcher}")
    return run_here


def report(options: Namespace, rest: list[str]) -> int:
    """``pscx report``: prints the name and the size of the page, and the names of the plots beside it."""
    from pscx.report.write import write_report

    inputs: list[Path] = options.inputs
    output = options.output or (inputs[0] / "report.html" if len(inputs) == 1 else Path("report.html"))
    limits = (options.images, options.originals, options.prior)
    names, streams = write_report(inputs, output, *limits, force=options.force)
    megabytes = names[0].stat().st_size / 1e6
    print(f"{names[0]}: {megabytes:.1f} MB, {streams} shown")
    print("\n".join(map(str, names[1:])))
    return 0


def demo(options: Namespace, rest: list[str]) -> int:
    """``pscx demo``: prints the page's address, and serves it until it is interrupted."""
    from pscx.demo.offline import offline

    with offline(), quiet():
        from pscx.demo.page import served
        from pscx.demo.views import views_of
        from pscx.demo.work import Bounds

        views = views_of(options.config, options.prior, Bounds(options.max_bytes, options.max_pixels))
        with served(views, options.host, options.port) as address:
            print(f"{address} (Ctrl-C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                Event().wait()
    return 0


def _codec_options(options: Namespace) -> list[str]:
    recipe = options.recipe or (None if options.config else "default")
    pairs = {"--config": options.config, "--recipe": recipe}
    return [text for key, value in pairs.items() if value is not None for text in (key, value)]


def _sources(inputs: Sequence[Path], files_of: Callable[[Path], list[Path]]) -> tuple[list[Path], bool]:
    """All input files, folders opened up, and whether the output must be a folder."""
    sources: list[Path] = []
    for path in inputs:
        sources += files_of(path) if path.is_dir() else [path]
    return sources, len(inputs) > 1 or any(path.is_dir() for path in inputs)


def _image_files(folder: Path) -> list[Path]:
    from pscx.data.files import image_files
    from pscx.errors import ImageError

    try:
        return image_files(folder)
    except ImageError:
        raise PscxError(f"'{folder}' holds no images (PNG, JPEG or WebP)") from None


def _stream_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob(f"*{SUFFIX}") if file.is_file())
    if not files:
        raise PscxError(f"'{folder}' holds no {SUFFIX} files")
    return files


def _jobs(sources: list[Path], names: list[list[str]], output: Path | None, several: bool, force: bool) -> list[Job]:
    """Pair inputs with outputs.

    Raises where an output exists without ``--force``, is an input itself, or two would be the same file.
    """
    several = several or (output is not None and output.is_dir())
    if several and output is not None and output.exists() and not output.is_dir():
        raise PscxError(f"'{output}' is a file: several inputs need a folder as output")
    jobs = [Job(source, _outputs(source, own, output, several)) for source, own in zip(sources, names, strict=True)]
    seen: dict[Path, Path] = {}
    inputs = {source.resolve() for source in sources}
    for job in jobs:
        for path in job.outputs:
            if path.resolve() in inputs:
                raise PscxError(f"'{path}' is an input, and '{job.source}' would become it: give another name with -o")
            if path in seen:
                raise PscxError(f"'{seen[path]}' and '{job.source}' would both become '{path}': treat them one by one")
            seen[path] = job.source
            check_output(path, force=force)
    return jobs


def _outputs(source: Path, names: list[str], output: Path | None, several: bool) -> list[Path]:
    if output is None or several:
        folder = source.parent if output is None else output
        return [folder / name for name in names]
    if len(names) == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{index}{output.suffix}") for index in range(len(names))]


def _present(jobs: list[Job]) -> tuple[list[Job], int]:
    """The jobs whose input exists, and how many of the others were reported."""
    missing = [job for job in jobs if not job.source.exists()]
    for job in missing:
        print(f"pscx: no such file: '{job.source}'", file=sys.stderr)
    return [job for job in jobs if job not in missing], len(missing)


def _each(
    what: str,
    jobs: list[Job],
    work: Callable[[Job, Bar], str],
    failed: int = 0,
    batch: int = 1,
    shares: Callable[[Job], bool] = lambda job: False,
) -> int:
    """Do the jobs, at most ``batch`` at once of those that share network calls, and print what each says, in order.

    A bad file is reported and the others still done.
    """
    with Bars(what, len(jobs), visible=what != "info") as bars:

        def do(job: Job) -> str:
            bar = bars.begin(job.source.name)
            try:
                return work(job, bar)
            finally:
                bar.end()

        for job, result in zip(jobs, _results(do, jobs, batch, shares), strict=True):
            if isinstance(result, str):
                print(result, flush=True)
            elif isinstance(result, PscxError):
                failed += 1
                sentence = str(result) if str(job.source) in str(result) else f"'{job.source}': {result}"
                print(f"pscx: {sentence}", file=sys.stderr)
            else:
                raise result
    return 2 if failed else 0


def _batch(options: Namespace, jobs: list[Job]) -> int:
    """How many are under way at once: unless it was said, some where there are several, of which small ones share."""
    from pscx.imagecodec import BATCH

    return int(options.batch or (BATCH if len(jobs) > 1 else 1))


def _is_small(sides: tuple[int, int] | None) -> bool:
    return sides is not None and sides[0] * sides[1] <= SMALL


def _results(
    do: Callable[[Job], str], jobs: list[Job], batch: int, shares: Callable[[Job], bool]
) -> Iterator[str | Exception]:
    """What ``do`` returned for each job, or the exception that it raised, in order."""
    if batch > 1:
        from pscx.together import Task, together  # imports torch

        yield from together((Task(partial(do, job), shares(job)) for job in jobs), batch)
        return
    for job in jobs:
        try:
            yield do(job)
        except Exception as error:  # as together() gives it: the caller tells what a user is told from a bug
            yield error


def _read_stream(path: Path, limit: int | None = None, partial: bool = False) -> bytes:
    """The first ``limit`` bytes of a stream, which must be whole unless ``partial``.

    Raises :class:`PscxError` with the name of the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(STREAM_SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise PscxError(f"no such file: '{path}'") from None
    except OSError as error:
        raise PscxError(f"cannot read '{path}': {error.strerror or error}") from error
    if not data:
        raise StreamError(f"'{path}' is empty: expected a {SUFFIX} stream")
    if len(data) > STREAM_SIZE_LIMIT:
        raise StreamError(f"'{path}' is over {STREAM_SIZE_LIMIT} bytes, larger than any stream")
    data = data[:limit]
    unpack(data, f"'{path}'", partial=partial)
    return data


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"format version  {facts['version']}",
        f"image           {facts['width']} x {facts['height']} pixels",
        f"size            {facts['bytes']} bytes, of which payload {facts['payload_bytes']}; {facts['bpp']:.4f} bpp",
        f"codec           {'recipe ' + facts['recipe'] if facts['recipe'] else ''}".rstrip(),
        *([] if facts["recipe"] else _as_yaml(facts["spec"])),
        f"prior           fingerprint {facts['fingerprint']}",
        *([] if facts["parameter"] is None else [f"{facts['parameter_name']:16}{facts['parameter']:g}"]),
        f"seed            {facts['seed']}",
        f"arithmetic      {facts['arithmetic'] or 'the same on every machine'}",
    ]
    return lines + ([f"caption         {facts['caption']!r}"] if facts["caption"] else [])


def _as_yaml(spec: Any) -> list[str]:
    """A spec as lines of YAML, or as it stands where it is nested too deeply for that."""
    import yaml

    try:
        text: str = yaml.safe_dump(spec, sort_keys=False, default_flow_style=None, width=100)
    except RecursionError:
        text = ascii(spec)
    return [f"  {line}" for line in text.splitlines()]
