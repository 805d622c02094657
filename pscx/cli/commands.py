"""The commands on files. Each checks its inputs and outputs before any work begins, and treats files one by one."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from pscx.cli.jobs import Job, Rule, plan, refuse_existing, say, sources
from pscx.cli.standard import STANDARD, read_standard, write_standard
from pscx.errors import PscxError, StreamError
from pscx.format.container import unpack
from pscx.format.info import stream_info
from pscx.runtime.bounds import check_bounds
from pscx.runtime.files import write_whole
from pscx.runtime.filling import MOST
from pscx.runtime.printing import complain, printable
from pscx.runtime.progress import Bar, Bars
from pscx.runtime.quiet import quiet
from pscx.runtime.suffixes import IMAGE_KINDS, IMAGES, STREAM

if TYPE_CHECKING:
    from pscx.ablation import Launcher
    from pscx.api import Codec, Decompressor, Pixels
    from pscx.compression.restoring import Choice
    from pscx.config import Layer
    from pscx.format.container import Header

TARGETS = ("quality", "bpp", "psnr", "max_bytes", "step")
STREAM_SIZE_LIMIT = 1 << 30
SMALL = 1 << 14  # pixels; up to this a network call costs more than its arithmetic


def compress(options: Namespace, rest: list[str]) -> int:
    """``pscx compress``: prints name, bytes and bpp of each stream; those that are up to date are left as they are."""
    layers = _compress_layers(options, rest)
    background = _background(options.background)
    todo = plan(options.inputs, options.output, _compress_rule(), force=options.force)
    if not todo.jobs and not todo.existing:
        return 2

    from pscx.api import build_codec, memory_of
    from pscx.codecs.with_prior import PriorCodec
    from pscx.compression.known_priors import KnownPriors
    from pscx.images import image_sides

    with quiet():
        codec = build_codec(layers).to(options.device)
    jobs, failed = todo.jobs, todo.failed + _refuse_but_up_to_date(codec, todo.existing)
    if not jobs:
        return 2 if failed else 0
    if isinstance(codec.signal_codec, PriorCodec):
        KnownPriors().remember(codec.signal_codec.fingerprint(), codec.signal_codec.prior)

    def work(job: Job, bar: Bar) -> str:
        pixels = _read_pixels(job.source, background)
        on_trial = None if codec.target is None else bar.trial
        source = "" if job.source == STANDARD else job.source
        encoded = codec.encode(pixels, source=source, progress=bar.advance, on_trial=on_trial)
        data, count = encoded.data, encoded.account.encodings
        _write(job.outputs[0], data, options.force)
        height, width = pixels.shape[:2]
        figures = [f"{len(data)} bytes", f"{8 * len(data) / (height * width):.4f} bpp", encoded.outcome]
        figures.append(f"{count} encodings" if count > 1 else "")
        return f"{printable(str(job.outputs[0]))}: {', '.join(filter(None, figures))}"

    def sides(job: Job) -> tuple[int, int] | None:
        return image_sides(job.source) if codec.shares_calls else None

    def needs(job: Job) -> int:
        width, height = image_sides(job.source) or (1, 1)
        return memory_of(codec.signal_codec, height, width)

    return _each("compress", jobs, work, failed, _together(options, jobs, codec, sides, needs))


def _background(name: str | None) -> str | None:
    """What transparent pixels are laid over. Raises :class:`PscxError` where it is no colour."""
    if name is not None:
        from pscx.images import background_colour

        try:
            background_colour(name)
        except ValueError as error:
            raise PscxError(str(error)) from None
    return name


def decompress(options: Namespace, rest: list[str]) -> int:
    """``pscx decompress``: prints the name of each image."""
    count = options.samples
    todo = plan(options.inputs, options.output, _decompress_rule(count), force=options.force)
    jobs, failed = todo.jobs, todo.failed + refuse_existing((job, "") for job in todo.existing)
    if not jobs:
        return 2

    from pscx.api import Decompressor
    from pscx.compression.configured import speed_of
    from pscx.compression.known_priors import KnownPriors
    from pscx.compression.restoring import Choice
    from pscx.format.limits import Limits
    from pscx.images import encode_image

    limits = Limits.of(options.budget, None if options.memory is None else options.memory * 1e9)
    decompressor = Decompressor(
        prior_path=options.prior,
        limits=limits,
        download=options.download,
        known=KnownPriors(),
        device=options.device,
        speed=None if options.speed is None else speed_of(options.speed),
    )

    partial = options.partial or options.max_bytes is not None
    choice = Choice.asked(options.restoration, options.perception, options.eta)
    chosen: dict[str, Any] = {"restoration": choice.restoration, "perception": choice.perception}

    def work(job: Job, bar: Bar) -> str:
        data = _read_stream(job.source, options.max_bytes, partial)
        done = decompressor.decode(data, range(count), **chosen, partial=partial, progress=bar.advance)
        if done.cut:
            used = f"{done.segments} of {done.iterations} segments used"
            complain(f"'{job.source}': {used}: {done.cut}")
        for output, image in zip(job.outputs, done.images, strict=True):
            _write(output, encode_image(image, "image.png" if output == STANDARD else output), options.force)
        return "\n".join(printable(str(output)) for output in job.outputs if output != STANDARD)

    with quiet():
        together = _decoded_together(options, jobs, decompressor, partial, choice)
        return _each("decompress", jobs, work, failed, together)


def _decoded_together(
    options: Namespace, jobs: list[Job], decompressor: Decompressor, partial: bool, choice: Choice
) -> Together:
    """Which streams are decoded at once: bit-exact ones, small or as many as an accelerator has room for."""
    from pscx.api import memory_to_decode

    def header_of(job: Job) -> Header | None:
        try:
            return unpack(_read_stream(job.source, options.max_bytes, partial), partial=True)[0]
        except PscxError:  # the work reports it
            return None

    def sides(job: Job) -> tuple[int, int] | None:
        header = header_of(job) if choice.exact else None
        return (header.width, header.height) if header is not None and header.exact else None

    def needs(job: Job) -> int:
        header = header_of(job)
        return 0 if header is None else memory_to_decode(decompressor, header, choice)

    return _together(options, jobs, decompressor, sides, needs)


def info(options: Namespace, rest: list[str]) -> int:
    """``pscx info``: the header of each stream, as text or JSON, and its segments if asked for."""

    def work(job: Job, bar: Bar) -> str:
        data = _read_stream(job.source)
        facts = stream_info(data)
        if segments is not None:
            facts["segments"] = segments(data, bar)
        if options.json:
            return json.dumps({"file": str(job.source), **facts})
        return "\n".join([printable(str(job.source)), *(f"  {printable(line)}" for line in _lines(facts))])

    given_for = {"prior": options.prior, "device": options.device != "auto", "budget": options.budget}
    ignored = [name for name, given in given_for.items() if given]
    if ignored and not options.segments:
        raise PscxError(f"--{ignored[0]} needs --segments: without it nothing is decoded")
    segments = _segments(options) if options.segments else None

    streams = Rule((STREAM,), f"{STREAM} files")
    given, notices = sources(options.inputs, streams)
    say(notices)
    return _each("info", [Job(source.path) for source in given], work)


def _segments(options: Namespace) -> Callable[[bytes, Bar], list[dict[str, Any]]]:
    """What finds bits, rows and denoiser evaluations (NFE) of each segment of a stream: it decodes all of them."""
    from pscx.api import Decompressor
    from pscx.compression.known_priors import KnownPriors
    from pscx.format.limits import Limits

    limits = Limits.of(options.budget, None)
    decompressor = Decompressor(prior_path=options.prior, limits=limits, known=KnownPriors(), device=options.device)

    def found(data: bytes, bar: Bar) -> list[dict[str, Any]]:
        steps = decompressor.replay(data, bar.advance).steps
        return [{"bits": one.bits + one.sealing, "rows": one.rows, "nfe": one.evaluations} for one in steps]

    return found


def components(options: Namespace, rest: list[str]) -> int:
    """``pscx components``: what there is to choose from, as text or JSON."""
    from pscx.catalogue.components import as_text, facts, select

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
    from pscx.ablation import is_done, placed, read_plan, read_results
    from pscx.ablation.report import write_report
    from pscx.ablation.results import in_short
    from pscx.config import split_options
    from pscx.runs.accelerators import device_options

    layers, unknown = split_options(["--config", options.config, *rest])
    if unknown:
        raise PscxError(f"ablate has no option '{unknown[0]}': see pscx ablate --help")
    launcher, device = _launcher(options), device_options(options.device)
    with quiet():
        plan = read_plan(layers)
    cells = {cell.id: cell for cell in plan.cells}
    to_do = {key: cell for key, cell in cells.items() if not is_done(cell)}
    if options.dry_run:
        for cell in cells.values():
            print(f"{'to do' if cell.id in to_do else 'done '}  {printable(cell.id)}  {printable(cell.name)}")
        print(f"{len(cells)} cells, {len(to_do)} to do")
        return 0
    if to_do:
        complain(f"{len(cells)} cells, {len(to_do)} to do")
    errors = {}
    wanted = placed(plan, to_do.values(), device, here=options.launcher == "local") if to_do else []
    for count, outcome in enumerate(launcher(wanted) if wanted else (), 1):
        cell, means = outcome.cell, read_results(outcome.cell.folder, left_out=True)
        says = f"{outcome.seconds:.1f} s"
        if outcome.error is not None:
            errors[cell.id] = outcome.error
            says = f"failed: {outcome.error}"
        elif means is not None:
            says = f"{in_short(means)}, {says}"
            says += f", {means.left_out} left out (see '{cell.folder / 'left_out.csv'}')" if means.left_out else ""
        complain(f"cell {count} of {len(to_do)} ({cell.name}): {says}")
    found = {key: read_results(cell.folder, left_out=True) for key, cell in cells.items()}
    results = {key: result for key, result in found.items() if result is not None}
    print(write_report(plan, results, errors))
    return 1 if errors else 2 if any(result.left_out for result in results.values()) else 0


def cite(options: Namespace, rest: list[str]) -> int:
    """``pscx cite``: prints the BibTeX entries of a config's or a recipe's parts."""
    from pscx.catalogue.citations import bibliography
    from pscx.config import split_options

    layers, unknown = split_options([*_codec_options(options), *rest])
    if unknown:
        raise PscxError(f"cite has no option '{unknown[0]}': see pscx cite --help")
    with quiet():
        found = bibliography(layers)
    print("\n\n".join(found))
    return 0


def _launcher(options: Namespace) -> Launcher:
    """The launcher of an ablation. Raises :class:`PscxError` for options of another launcher."""
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
    from pscx.compression.restoring import Choice
    from pscx.report.gallery import Others
    from pscx.report.write import write_report

    choice = Choice.asked(options.restoration, None, options.eta)
    label = f"{options.restoration}{'' if options.eta is None else f', eta {options.eta:g}'}"
    others = Others(choice.restoration, label, options.perception)
    inputs: list[Path] = options.inputs
    output = options.output or (inputs[0] / "report.html" if len(inputs) == 1 else Path("report.html"))
    shown = (options.images, options.originals, options.prior)
    more = {"budget": options.budget, "force": options.force, "device": options.device, "others": others}
    (page, *plots), streams = write_report(inputs, output, *shown, **more)
    print(f"{printable(str(page))}: {page.stat().st_size / 1e6:.1f} MB, {streams} shown")
    for plot in plots:
        print(printable(str(plot)))
    return 0


def compare(options: Namespace, rest: list[str]) -> int:
    """``pscx compare``: prints the tables that it writes, and the folder."""
    from pscx.comparison.write import Wanted, write_comparison

    inputs: list[Path] = options.inputs
    output = options.output or (inputs[0] if len(inputs) == 1 else Path())
    within = None if options.within is None else (options.within[0], options.within[1])
    wanted = Wanted(options.published, options.against, within, options.originals)
    print(write_comparison(inputs, output, wanted, options.force))
    complain(f"written to '{output}'")
    return 0


def demo(options: Namespace, rest: list[str]) -> int:
    """``pscx demo``: prints the page's address, and serves it until it is interrupted."""
    from pscx.demo.ending import ended_by_signals
    from pscx.demo.offline import offline

    with ended_by_signals(), offline(), quiet():
        from pscx.demo.feed import end_all
        from pscx.demo.page import served
        from pscx.demo.views import views_of
        from pscx.demo.work import Bounds

        views = views_of(options.config, options.prior, Bounds(options.max_bytes, options.max_pixels), options.device)
        with served(views, options.host, options.port) as address:
            print(f"{address} (Ctrl-C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                Event().wait()
            end_all()
    return 0


def _codec_options(options: Namespace) -> list[str]:
    recipe = options.recipe or (None if options.config else "default")
    pairs = {"--config": options.config, "--recipe": recipe}
    return [text for key, value in pairs.items() if value is not None for text in (key, value)]


def _compress_layers(options: Namespace, rest: list[str]) -> list[Layer]:
    """The configuration that the options of ``pscx compress`` add up to."""
    from pscx.config import option_layer, split_options

    seed = [] if options.seed is None else ["--model.codec.seed", options.seed]
    layers, unknown = split_options([*_codec_options(options), *seed, *rest])
    given = [layer for layer in layers if layer.source[:2] == "--"]
    foreign = [layer.source for layer in given if layer.values.keys() - {"recipe", "model"}]
    if unknown or foreign:
        raise PscxError(f"compress has no option '{[*unknown, *foreign][0]}': see pscx compress --help")
    if options.caption is not None:
        layers.append(option_layer("model.caption", {"name": "fixed", "text": options.caption}))
    wanted = {name: value for name in TARGETS if (value := getattr(options, name)) is not None}
    for name, value in wanted.items():
        layer = option_layer("model.target", {"name": name, "value": value})
        layers.append(replace(layer, source=f"--{name.replace('_', '-')}"))
    return layers


def _compress_rule() -> Rule:
    def check(path: Path) -> None:
        if path.suffix.lower() != STREAM:
            raise PscxError(f"'{path}': a stream name must end in {STREAM}, a folder name in a slash")

    names = partial(_names, "", STREAM, 1)
    kind = f"images ({IMAGE_KINDS})"
    return Rule(IMAGES, kind, takes_runs=False, outputs=(*IMAGES, STREAM), names=names, check=check)


def _decompress_rule(samples: int) -> Rule:
    def check(path: Path) -> None:
        from pscx.images import check_image_suffix

        if not path.suffix:
            raise PscxError(f"'{path}': an image name must end in .png or .webp, a folder name in a slash")
        check_image_suffix(path)

    def numbered(path: Path) -> list[Path]:
        return [path.with_name(name) for name in _names("", path.suffix, samples, path.stem)]

    names = partial(_names, ".decoded", ".png", samples)  # never the name of the image that was compressed
    kind, outputs = f"{STREAM} files", (*IMAGES, STREAM)
    return Rule((STREAM,), kind, outputs=outputs, names=names, numbered=numbered, check=check)


def _names(middle: str, suffix: str, count: int, stem: str) -> list[str]:
    numbers = [""] if count == 1 else [f"-{index}" for index in range(count)]
    return [f"{stem}{middle}{number}{suffix}" for number in numbers]


def _refuse_but_up_to_date(codec: Codec, existing: list[Job]) -> int:
    """Count the streams that are up to date, and refuse the others; how many these are."""
    from pscx.cli.up_to_date import UpToDate

    up_to_date = UpToDate(codec)
    differences = [(job, up_to_date.difference(job.source, job.outputs[0])) for job in existing]
    refused = refuse_existing((job, difference) for job, difference in differences if difference)
    if kept := len(differences) - refused:
        what = "1 stream is" if kept == 1 else f"{kept} streams are"
        say([f"pscx: {what} up to date and left as {'it is' if kept == 1 else 'they are'}"])
    return refused


def _each(
    what: str,
    jobs: list[Job],
    work: Callable[[Job, Bar], str],
    failed: int = 0,
    together: Together | None = None,
) -> int:
    """Do the jobs, those that share network calls ``together``, and print what each says, in order.

    A bad file is reported and the others still done.
    """
    with Bars(what, len(jobs), visible=what != "info") as bars:

        def do(job: Job) -> str:
            bar = bars.begin(job.source.name)
            try:
                return work(job, bar)
            finally:
                bar.end()

        for job, result in zip(jobs, _results(do, jobs, together or Together()), strict=True):
            if isinstance(result, str):
                if result:
                    print(result, file=sys.stderr if STANDARD in job.outputs else sys.stdout, flush=True)
            elif isinstance(result, PscxError):
                failed += 1
                sentence = str(result) if f"'{job.source}'" in str(result) else f"'{job.source}': {result}"
                complain(sentence)
            else:
                raise result
    return 2 if failed else 0


@dataclass(frozen=True)
class Together:
    """Which jobs are done at once: at most ``batch`` of those that share calls, as far as there is ``room`` for them.

    ``needs`` is asked for the bytes that a job takes where room is bounded, in bytes.
    """

    batch: int = 1
    room: int | None = None
    shares: Callable[[Job], bool] = lambda job: False
    needs: Callable[[Job], int] = lambda job: 0


def _together(
    options: Namespace,
    jobs: list[Job],
    codec: Decompressor,
    sides: Callable[[Job], tuple[int, int] | None],
    needs: Callable[[Job], int],
) -> Together:
    """As many jobs as an accelerator has room for, or some small ones on the CPU; with ``--batch`` so many of any size.

    ``sides`` are the width and height of a job that may share network calls, or none.
    """
    from pscx.api import BATCH, room_for

    room = None if options.batch else room_for(codec)
    usual = BATCH if room is None else MOST

    def shares(job: Job) -> bool:
        found = sides(job) if job.rereadable else None
        return found is not None and bool(options.batch or room is not None or found[0] * found[1] <= SMALL)

    return Together(options.batch or (usual if len(jobs) > 1 else 1), room, shares, needs)


def _results(do: Callable[[Job], str], jobs: list[Job], how: Together) -> Iterator[str | Exception]:
    """What ``do`` returned for each job, or the exception that it raised, in order."""
    if how.batch > 1:
        from pscx.execution.batching import Task, together  # imports torch

        def task(job: Job) -> Task[str]:
            shares = how.shares(job)
            return Task(partial(do, job), shares, how.needs(job) if shares and how.room is not None else 0)

        yield from together(map(task, jobs), how.batch, how.room)
        return
    for job in jobs:
        try:
            yield do(job)
        except Exception as error:  # returned as by together(): the caller separates user errors from bugs
            yield error


def _read_stream(path: Path, limit: int | None = None, partial: bool = False) -> bytes:
    """The first ``limit`` bytes of a stream, which must be whole unless ``partial``.

    Raises :class:`PscxError` with the name of the file.
    """
    try:
        if path == STANDARD:
            data = read_standard(STREAM_SIZE_LIMIT)
        else:
            with path.open("rb") as file:
                data = file.read(STREAM_SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise PscxError(f"no such file: '{path}'") from None
    except OSError as error:
        raise PscxError(f"cannot read '{path}': {error.strerror or error}") from error
    if not data:
        raise StreamError(f"'{path}' is empty: expected a {STREAM} stream")
    if len(data) > STREAM_SIZE_LIMIT:
        raise StreamError(f"'{path}' exceeds {STREAM_SIZE_LIMIT} bytes, the limit for a stream")
    data = data[:limit]
    unpack(data, f"'{path}'", partial=partial)
    return data


def _read_pixels(path: Path, background: str | None) -> Pixels:
    """The image of a file or of standard input."""
    from pscx.images import decode_image, read_image

    if path != STANDARD:
        return read_image(path, background=background)
    data = read_standard()
    if not data:
        raise PscxError(f"'{path}' is empty: expected an image on standard input")
    return decode_image(data, path, background=background)


def _write(path: Path, data: bytes, force: bool) -> None:
    if path == STANDARD:
        write_standard(data)
    else:
        write_whole(path, data, force=force)


SAME = {
    "pixels": "the same on every machine",
    "latents": "the same on every machine up to the latents; pixels may differ in their last bits",
}
"""What is said of a bit-exact stream, by what it is of."""


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"format version  {facts['version']}",
        f"image           {facts['width']} x {facts['height']} pixels",
        f"size            {facts['bytes']} bytes, of which payload {facts['payload_bytes']}; {facts['bpp']:.4f} bpp",
        f"codec           {_recipe(facts)}".rstrip(),
        *([] if facts["spec"] is None else _as_yaml(facts["spec"])),
        f"prior           {_prior(facts)}",
        *([] if facts["parameter"] is None else [f"{facts['parameter_name']:16}{facts['parameter']:g}"]),
        f"seed            {facts['seed']}",
        f"arithmetic      {facts['arithmetic'] or SAME.get(facts['signal'], SAME['pixels'])}",
    ]
    lines += [f"caption         {facts['caption']!r}"] if facts["caption"] else []
    for number, one in enumerate(facts.get("segments", []), 1):
        lines.append(f"segment {number:<8}{one['bits']:.1f} bits, {one['rows']} rows, {one['nfe']} evaluations (NFE)")
    return lines


def _prior(facts: dict[str, Any]) -> str:
    """What a stream says of its prior; the fingerprint of none is zero."""
    return f"fingerprint {facts['fingerprint']}" if facts["fingerprint"].strip("0") else "none"


def _recipe(facts: dict[str, Any]) -> str:
    """What a stream says of its recipe; empty where it holds a spec."""
    name, digest = facts["recipe"], facts["recipe_digest"]
    if digest is None:
        return f"recipe {name}" if name else ""
    return f"recipe {name} (digest {digest})" if name else f"a user recipe that is not here (digest {digest})"


def _as_yaml(spec: Any) -> list[str]:
    """A spec as lines of YAML, or why no decoder takes it."""
    import yaml

    try:
        check_bounds(spec)
    except ValueError as error:
        return [f"  not shown: {error}"]
    text: str = yaml.safe_dump(spec, sort_keys=False, default_flow_style=None, width=100)
    return [f"  {line}" for line in text.splitlines()]
