"""The command line: files in and out (compress, decompress, info), and Lightning's fit, validate, test and predict."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from collections.abc import Callable, Iterator, Mapping
from io import TextIOWrapper
from itertools import islice, takewhile
from math import inf
from typing import NoReturn, TypeVar

from pscx import __version__
from pscx.cli.jobs import Output
from pscx.cli.lightning_help import describe
from pscx.cli.standard import named
from pscx.errors import PscxError, UsageError
from pscx.registry import choices
from pscx.runtime.allocator import keep_freed_memory
from pscx.runtime.arguments import take_option
from pscx.runtime.extras import broken_torchvision
from pscx.runtime.printing import complain, sentence_of
from pscx.runtime.ranks import check_ranks
from pscx.runtime.suffixes import IMAGE_KINDS
from pscx.runtime.termination import EXIT_CODE, Terminated, terminable

T = TypeVar("T")
LIGHTNING = {
    "test": "compress and restore a folder of images, and measure rate and distortion",
    "predict": "compress and restore a folder of images, without measuring",
    "fit": "train a prior, or learn a codec's row rule or entropy coding",
    "validate": "validate a prior",
}
INTERRUPTED = 130
DIGITS = 18  # of a number that counts something
MOST_SAMPLES = 1000  # each is a file and a restoration
PRIOR_HELP = "where to load the prior from: a folder or a hub id"
WITHOUT_RECIPES = ("components",)
WITHOUT_RANKS = ("compress", "decompress", "info")  # import no Lightning
PATHS = ("--prior", "--config", "--plugins", "--recipes", "--originals", "--output", "--ckpt_path")
PUBLISHED = ("kodak", "kodak-512", "clic", "clic2020-professional", "clic2020-mobile", "div2k", "tecnick")
"""The sets of pscx.comparison.published_sets."""
WITH_SETTINGS = ("compress", "ablate", "cite")  # takes keys of a config, such as --model.codec.sampler.steps
SETTINGS_HELP = "--model.KEY VALUE sets any key of the config's model section, such as --model.codec.sampler.steps 5."
DEVICES = "cpu, cuda, cuda:1, mps, ..., or auto: the best device that is bit-exact with the CPU (default: auto)"
PLUGINS_HELP = "--plugins FOLDER loads a folder of plugins; it may be given more than once."
RECIPES_HELP = "--recipes FOLDER loads a folder of user recipes; it may be given more than once."


def main(args: list[str] | None = None) -> int:
    """Run one command and return the exit code.

    It is 0, 1 where cells of an ablation failed, 2 for bad input (one sentence on stderr) or files that were left out,
    130 when interrupted, and 143 after SIGTERM.
    """
    args = sys.argv[1:] if args is None else args
    try:
        if any("\0" in arg for arg in args):
            raise UsageError("an argument holds a zero byte, which no name has")
        with terminable():
            return _run(args)
    except PscxError as error:
        complain(sentence_of(error))
        return 2
    except BrokenPipeError:
        raise  # see run
    except OSError as error:
        complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 2
    except Terminated:
        print("pscx: terminated before the work was done (SIGTERM)", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:  # raised again, but for those whose cause a sentence tells
        sentence = broken_torchvision(error) or _failed_in_plugin(error)
        if sentence is None:
            raise
        complain(sentence)
        return 2


def _failed_in_plugin(error: Exception) -> str | None:
    from pscx.config.plugins import failed_in_plugin

    return failed_in_plugin(error)


def run() -> NoReturn:
    """Entry point of the ``pscx`` program."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):  # a console that cannot print a character shows its code
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        if sys.stdout is not None:  # it is where a shell has closed it
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:  # a second Ctrl-C, during the message about the first
        code = INTERRUPTED
    if code == INTERRUPTED:  # immediately: a thread inside a library would end the process with an error
        os._exit(code)
    sys.exit(code)


def _run(args: list[str]) -> int:
    args = [_at_home(arg) for arg in args]
    plugins, args = take_option("--plugins", args, "folder")
    recipes, args = take_option("--recipes", args, "folder")
    _check_names(args)
    asks = bool({"-h", "--help"} & set(takewhile(lambda arg: arg != "--", args)))  # makes no component and no parser
    if args and not args[0].startswith("-") and not asks:
        if args[0] not in WITHOUT_RANKS:
            check_ranks()
        _load(args[0], plugins, recipes)
    if args and args[0] in LIGHTNING and not asks:
        from pscx.runs.lightning import run_lightning

        return run_lightning(args[0], args[1:])
    _check_dashes(args)
    settings, args = _settings(args) if args[:1] == ["compress"] else ([], args)
    try:
        options, rest = _parsers()[0].parse_known_args(args)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    if rest and options.command not in WITH_SETTINGS:
        raise UsageError(f"{options.command} has no option '{rest[0]}': see pscx {options.command} --help")
    from pscx.cli import commands

    return int(getattr(commands, options.command)(options, [*settings, *rest]))


def _at_home(arg: str) -> str:
    """``--prior=~/x`` with the home folder, which a shell puts in only where the path is an argument of its own."""
    name, equals, value = arg.partition("=")
    return f"{name}{equals}{os.path.expanduser(value)}" if name in PATHS and value.startswith("~/") else arg


def _check_names(args: list[str]) -> None:
    """Refuse a command or an option that there is not, with the nearest one: argparse suggests nothing."""
    if not args:
        return
    parser: ArgumentParser
    parser, commands = _parsers()
    if not args[0].startswith("-"):
        if args[0] not in commands:
            raise UsageError(f"unknown command '{args[0]}'{choices(args[0], commands)}")
        if args[0] in LIGHTNING:
            return  # checks its own options
        parser = commands[args[0]]
    known = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    for arg in takewhile(lambda arg: arg != "--", args):
        name = re.split(r"[.=]", arg)[0]
        if arg.startswith("--") and name not in known:
            raise UsageError(f"{parser.prog.removeprefix('pscx ')} has no option '{arg}'{choices(name, set(known))}")


def _load(command: str, plugins: list[str], recipes: list[str]) -> None:
    """Load plugins and user recipes for a command that uses them; plugins must be there before any parser is made."""
    if recipes and command in WITHOUT_RECIPES:
        raise UsageError(f"{command} has no option '--recipes': it uses no codec")
    from pscx.config.plugins import load

    for failure in load(plugins):
        complain(f"warning: {failure}")
    if command not in WITHOUT_RECIPES:
        from pscx.config.recipes.folders import load_recipes

        load_recipes(*recipes)


def _check_dashes(args: list[str]) -> None:
    """Refuse a file whose name begins with a dash, which would be taken for an option."""
    for arg in takewhile(lambda arg: arg != "--", args):
        if re.match(r"-[^-]", arg) and len(arg) > 2 and os.path.isfile(arg):
            raise UsageError(f"'{arg}' begins with a dash, as options do: write './{arg}'")


def _settings(args: list[str]) -> tuple[list[str], list[str]]:
    """``--model.KEY VALUE`` and the rest: argparse would take VALUE for a file."""
    own: list[str] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
        if arg == "--":
            return own, [*rest, arg, *queue]
        if arg.startswith("--model"):
            own += [arg] if "=" in arg else [arg, *islice(queue, 1)]
        else:
            rest.append(arg)
    return own, rest


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")


def _parsers() -> tuple[_Parser, Mapping[str, ArgumentParser]]:
    """That of the program, and those of its commands."""
    parser = _Parser("pscx", description="Image compression with diffusion models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pscx {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_compress(_command(commands, "compress", "compress images into .pscx files"))
    _add_decompress(_command(commands, "decompress", "decompress .pscx files into images"))
    info = _command(commands, "info", "show the headers of .pscx files")
    info.add_argument("inputs", nargs="+", type=_path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="print one JSON object per line")
    text = "decode the stream, and print bits, rows and evaluations (NFE) of each segment"
    info.add_argument("--segments", action="store_true", help=text)
    info.add_argument("--prior", type=_text, metavar="PATH", help=PRIOR_HELP)
    _add_device(info)
    _add_budget(info)
    _add_components(_command(commands, "components", "list all components, their options and defaults"))
    _add_ablate(_command(commands, "ablate", "evaluate a grid of configurations and compare their curves"))
    _add_cite(_command(commands, "cite", "print BibTeX entries for the components of a config"))
    _add_report(_command(commands, "report", "write an HTML report about runs of test or ablate"))
    _add_compare(_command(commands, "compare", "compare runs, also with published figures"))
    _add_demo(_command(commands, "demo", "serve a local web page that compresses photographs and decodes streams"))
    for name, text in LIGHTNING.items():
        own = _command(commands, name, text)
        describe(own, name)
        _add_device(own)
    return parser, commands.choices


def _command(commands: _SubParsersAction[_Parser], name: str, text: str) -> ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    parser.epilog = " ".join(_folders_help(name))
    return parser


def _folders_help(command: str) -> Iterator[str]:
    yield PLUGINS_HELP
    if command not in WITHOUT_RECIPES:
        yield RECIPES_HELP


def _add_compress(parser: ArgumentParser) -> None:
    parser.epilog = f"{SETTINGS_HELP} {parser.epilog}"
    _add_files(parser, "IMAGE", f"{IMAGE_KINDS} files, folders of them, or - for standard input")
    _add_codec(parser)
    _add_targets(parser)
    parser.add_argument("--caption", metavar="TEXT", help="what the images show, for a prior that takes captions")
    parser.add_argument("--seed", metavar="SEED", help="seed of all noise, in [0, 2^64)")
    _add_device(parser)
    parser.add_argument("--background", metavar="COLOR", help="colour behind transparent pixels (default: white)")


def _add_codec(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=_text, metavar="YAML", help="a config file; its model section is used")
    add("--recipe", type=_text, metavar="NAME", help="a recipe of pscx or a user recipe (default: default)")


def _add_targets(parser: ArgumentParser) -> None:
    """Rate control: at most one of these options. Without one, the target or quantizer of the config is used."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--quality", type=_number, metavar="Q", help="quality from 1 to 100: the same step for every image")
    add("--bpp", type=_number, metavar="B", help="bits per pixel: at most B, and within 2 %% of it")
    add("--psnr", type=_number, metavar="DB", help="PSNR of the decoded image, within 0.1 dB")
    add("--max-bytes", type=_integer(1), metavar="N", help="file size: at most N bytes, and within 2 %% of it")
    add("--step", type=_number, metavar="STEP", help="step of the quantizer: smaller is finer")


def _add_decompress(parser: ArgumentParser) -> None:
    _add_files(parser, "STREAM", ".pscx files, folders of them, or - for standard input")
    add = parser.add_argument
    text = "write N restorations: NAME.decoded-0.png, ..."
    add("--samples", type=_integer(1, MOST_SAMPLES), default=1, metavar="N", help=text)
    _add_restoration(parser)
    text = "restore from 0 (least error) to 1 (most realistic), for streams of recipes"
    add("--perception", type=_number, metavar="P", help=text)
    add("--prior", type=_text, metavar="PATH", help=PRIOR_HELP)
    add("--memory", type=_over_zero, metavar="GB", help="refuse streams that need more memory (default: all there is)")
    _add_device(parser)
    text = "what makes a floating-point prior faster, as it was encoded: {compile: true}; see pscx components speed"
    add("--speed", type=_text, metavar="YAML", help=text)
    _add_budget(parser)
    add("--download", action="store_true", help="download a prior that is not on this machine from its default place")
    add("--partial", action="store_true", help="decode the intact part of a cut or damaged stream, and say how much")
    text = "decode as if the stream ended after N bytes; implies --partial"
    add("--max-bytes", type=_integer(1), metavar="N", help=text)


def _add_restoration(parser: ArgumentParser) -> None:
    """What restores pictures, where not what each stream's codec says."""
    add = parser.add_argument
    text = "restore by NAME, or {name: NAME, OPTION: VALUE} (default: as the stream's codec does)"
    add("--restoration", type=_text, metavar="NAME", help=text)
    text = "share of fresh noise in the samples of --restoration, from 0 to 1"
    add("--eta", type=_number, metavar="E", help=text)


def _add_budget(parser: ArgumentParser) -> None:
    text = "refuse streams that need more denoiser evaluations (NFE) times pixels (default: 2^33, some hours on a CPU)"
    parser.add_argument("--budget", type=_over_zero, metavar="N", help=text)


def _add_ablate(parser: ArgumentParser) -> None:
    parser.epilog = f"--model.KEY, --data.KEY and --trainer.KEY VALUE set options that all cells share. {parser.epilog}"
    add = parser.add_argument
    add("--config", type=_text, metavar="YAML", required=True, help="a file with axes, as in configs/ablations")
    add("--device", type=_text, metavar="NAME", help=DEVICES)
    add("--dry-run", action="store_true", help="list the cells and whether each is done")
    text = "where cells run (default: local, in this process)"
    add("--launcher", choices=("local", "ray"), default="local", help=text)
    add("--ray-address", metavar="HOST:PORT", help="address of the Ray cluster (default: found by Ray)")
    add("--cpus-per-cell", type=_number, metavar="N", help="CPUs of a cell with --launcher ray (default: 1)")
    add("--gpus-per-cell", type=_number, metavar="N", help="GPUs of a cell with --launcher ray (default: 0)")


def _add_cite(parser: ArgumentParser) -> None:
    parser.epilog = f"{SETTINGS_HELP} {parser.epilog}"
    _add_codec(parser)


def _add_report(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", type=_path, metavar="RUN", help="folders written by pscx test or ablate")
    text = "the HTML file (default: report.html, in RUN if there is only one)"
    add("-o", "--output", type=_path, metavar="FILE", help=text)
    add("--images", type=_integer(0), default=12, metavar="N", help="decode and show at most N streams (default: 12)")
    add("--originals", type=_path, metavar="FOLDER", help="folder of the originals (default: as in each run)")
    _add_restoration(parser)
    text = "also restore streams of recipes from least error to most realistic, with a slider"
    add("--perception", action="store_true", help=text)
    add("--prior", type=_text, metavar="PATH", help="where to load the priors from (default: as in each run)")
    _add_device(parser)
    _add_budget(parser)
    add("--force", action="store_true", help="overwrite existing outputs")


def _add_compare(parser: ArgumentParser) -> None:
    add = parser.add_argument
    text = "folders that pscx test, pscx ablate or benchmarks/rate_distortion.py wrote"
    add("inputs", nargs="+", type=_path, metavar="RUN", help=text)
    text = f"with published figures of SET, the images of the runs: {', '.join(PUBLISHED)} (default: {PUBLISHED[0]})"
    add("--published", nargs="?", const=PUBLISHED[0], choices=PUBLISHED, metavar="SET", help=text)
    add("--against", type=_text, metavar="CURVE", help="what all stand against (default: published av1, else RUN)")
    text = "compare rates within this PSNR in dB (default: 26 35 with --published, else all that curves share)"
    add("--within", nargs=2, type=_number, metavar=("LOW", "HIGH"), help=text)
    text = "with --published: folder of the originals, for JPEG (default: as in RUN)"
    add("--originals", type=_path, metavar="FOLDER", help=text)
    text = "for the results (default: RUN if there is one, else here)"
    add("-o", "--output", type=_path, metavar="FOLDER", help=text)
    add("--force", action="store_true", help="overwrite existing outputs")


def _add_demo(parser: ArgumentParser) -> None:
    _add_device(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="HOST", help="address to listen on (default: this machine only)")
    add("--port", type=_integer(1, 65535), default=7860, metavar="PORT", help="port of the page (default: 7860)")
    add("--config", type=_text, metavar="YAML", help="a config file whose codec is offered besides the recipes")
    add("--prior", type=_text, metavar="PATH", help="where to load the priors of uploaded streams from")
    text = "largest upload in bytes (default: 20000000)"
    add("--max-bytes", type=_integer(1), default=20_000_000, metavar="N", help=text)
    text = "largest image in pixels (default: 1048576)"
    add("--max-pixels", type=_integer(1), default=1 << 20, metavar="N", help=text)


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", type=_text, default="auto", metavar="NAME", help=DEVICES)


def _add_components(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="a kind, such as sampler, or a component, such as ddrm")
    add("--kind", metavar="KIND", help="only components of this kind")
    add("--json", action="store_true", help="print one JSON object per line")


def _add_files(parser: ArgumentParser, metavar: str, text: str) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", type=_path, metavar=metavar, help=text)
    text = "a file, - for standard output, or a folder: FOLDER/, or any name for several inputs"
    add("-o", "--output", type=_output, metavar="OUT", help=text)
    add("--force", action="store_true", help="overwrite existing outputs")
    text = "process N inputs at once in shared network calls (default: what fits on a GPU; else 8 up to 128x128, or 1)"
    add("--batch", type=_integer(1), metavar="N", help=text)


def _argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """``read`` as the type of an argument: argparse shows the message of no other error than its own."""

    def argument(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return argument


_path, _output = _argument(named), _argument(Output.of)


def _integer(least: int, most: int | None = None) -> Callable[[str], int]:
    allowed = f"of at least {least}" if most is None else f"in {least}..{most}"

    def argument(text: str) -> int:
        if text.isdecimal() and len(text) > DIGITS:
            raise ArgumentTypeError(f"must have at most {DIGITS} digits, got {len(text)}")
        if not text.isdecimal() or not least <= int(text) <= (inf if most is None else most):
            raise ArgumentTypeError(f"must be an integer {allowed}, got '{text}'")
        return int(text)

    return argument


def _text(text: str) -> str:
    if not text:
        raise ArgumentTypeError("must not be empty")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a number, got '{text}'") from None


def _over_zero(text: str) -> float:
    number = _number(text)
    if not 0 < number < inf:
        raise ArgumentTypeError(f"must be a finite number over 0, got '{text}'")
    return number


if __name__ == "__main__":
    run()
