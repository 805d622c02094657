"""The command line: files in and out (compress, decompress, info), and Lightning's fit, validate, test and predict."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from itertools import islice, takewhile
from math import inf
from pathlib import Path
from typing import NoReturn

from pscx import __version__
from pscx.cli.jobs import Output
from pscx.cli.lightning_help import describe
from pscx.cli.standard import named
from pscx.errors import PscxError
from pscx.registry import choices
from pscx.runtime.allocator import keep_freed_memory
from pscx.runtime.extras import broken_torchvision
from pscx.runtime.printing import complain, sentence_of
from pscx.runtime.ranks import check_ranks
from pscx.runtime.suffixes import IMAGE_KINDS
from pscx.runtime.termination import EXIT_CODE, Terminated, terminable

LIGHTNING = {
    "test": "compress and restore a folder of images, and measure rate and distortion",
    "predict": "the same through Lightning's predict: reconstructions without measures",
    "fit": "train a prior, or learn a codec's row rule or entropy coding",
    "validate": "validate a prior",
}
INTERRUPTED = 130
WITHOUT_PLUGINS = ("info",)  # makes no component
WITHOUT_RECIPES = ("components",)
WITHOUT_RANKS = ("compress", "decompress", "info")  # import no Lightning
PATHS = ("--prior", "--config", "--plugins", "--recipes", "--originals", "--output", "--ckpt_path")
WITH_SETTINGS = ("compress", "ablate", "cite")  # takes keys of a config, such as --model.codec.sampler.steps
SETTINGS_HELP = "--model.KEY VALUE sets any key of the config's model section, such as --model.codec.sampler.steps 5."
DEVICES = "cpu, cuda, cuda:1, mps, ..., or auto: the best that gives the bits of the CPU (default: auto)"
PLUGINS_HELP = "--plugins FOLDER loads the components of a folder of plugins; it may be given more than once."
RECIPES_HELP = "--recipes FOLDER makes the user recipes in a folder known, likewise."


class UsageError(PscxError):
    """A command line that cannot be understood."""


def main(args: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 2 for bad input (one sentence on stderr), 130 when interrupted.

    SIGTERM ends it with 143.
    """
    args = sys.argv[1:] if args is None else args
    try:
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
    except Exception as error:
        sentence = broken_torchvision(error)
        if sentence is None:
            raise
        complain(sentence)
        return 2


def run() -> NoReturn:
    """Entry point of the ``pscx`` program."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):  # a console that cannot print a name shows its codes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:  # once more, while the first was told
        code = INTERRUPTED
    if code == INTERRUPTED:  # at once: a thread that is still in a library's code would end the process with an error
        os._exit(code)
    sys.exit(code)


def _run(args: list[str]) -> int:
    args = [_at_home(arg) for arg in args]
    plugins, args = _folders("--plugins", args)
    recipes, args = _folders("--recipes", args)
    _check_names(args)
    asks = bool({"-h", "--help"} & set(takewhile(lambda arg: arg != "--", args)))  # makes no component and no parser
    if args and not args[0].startswith("-") and not asks:
        if args[0] not in WITHOUT_RANKS:
            check_ranks()
        _load_plugins(args[0], plugins)
        _load_recipes(args[0], recipes)
    if args and args[0] in LIGHTNING and not asks:
        from pscx.runs.lightning import run_lightning

        return run_lightning(args[0], args[1:])
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
            return  # knows its own
        parser = commands[args[0]]
    known = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    for arg in takewhile(lambda arg: arg != "--", args):
        name = re.split(r"[.=]", arg)[0]
        if arg.startswith("--") and name not in known:
            raise UsageError(f"{parser.prog.removeprefix('pscx ')} has no option '{arg}'{choices(name, set(known))}")


def _folders(option: str, args: list[str]) -> tuple[list[str], list[str]]:
    """``--plugins FOLDER``, wherever it stands, and the rest: plugins must be there before any parser is made.

    Likewise ``--recipes``, which is the other ``option`` of every command that takes such folders.
    """
    folders: list[str] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
        name, equals, value = arg.partition("=")
        if arg == "--":
            return folders, [*rest, arg, *queue]
        if name != option:
            rest.append(arg)
            continue
        value = value if equals else next(queue, "")
        if not value or value.startswith("--"):
            raise UsageError(f"option {option} needs a folder")
        folders.append(value)
    return folders, rest


def _load_plugins(command: str, folders: list[str]) -> None:
    if command in WITHOUT_PLUGINS:
        if folders:
            raise UsageError(f"{command} has no option '--plugins': it makes no component")
        return
    from pscx.config.plugins import load

    for failure in load(folders):
        complain(f"warning: {failure}")


def _load_recipes(command: str, folders: list[str]) -> None:
    if command in WITHOUT_RECIPES:
        if folders:
            raise UsageError(f"{command} has no option '--recipes': it makes no codec")
        return
    from pscx.config.recipes.folders import load_recipes

    load_recipes(*folders)


def _settings(args: list[str]) -> tuple[list[str], list[str]]:
    """``--model.KEY VALUE`` and the rest: argparse would take VALUE for a file."""
    own: list[str] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
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
    info = _command(commands, "info", "what is in .pscx files, nothing decoded")
    info.add_argument("inputs", nargs="+", type=_path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_components(_command(commands, "components", "every component, its options and their defaults"))
    _add_ablate(_command(commands, "ablate", "evaluate a grid of configurations and compare their curves"))
    _add_cite(_command(commands, "cite", "the BibTeX entries of the parts that a config uses"))
    _add_report(_command(commands, "report", "one page about runs of test or ablate, to be looked at"))
    _add_demo(_command(commands, "demo", "a page on this machine that compresses photographs and decodes streams"))
    for name, text in LIGHTNING.items():
        describe(_command(commands, name, text), name)
    return parser, commands.choices


def _command(commands: _SubParsersAction[_Parser], name: str, text: str) -> ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    parser.epilog = " ".join(_folders_help(name))
    return parser


def _folders_help(command: str) -> Iterator[str]:
    if command not in WITHOUT_PLUGINS:
        yield PLUGINS_HELP
    if command not in WITHOUT_RECIPES:
        yield RECIPES_HELP


def _add_compress(parser: ArgumentParser) -> None:
    parser.epilog = f"{SETTINGS_HELP} {parser.epilog}"
    _add_files(parser, "IMAGE", f"{IMAGE_KINDS} files, folders of them, or - for standard input")
    _add_codec(parser)
    _add_targets(parser)
    parser.add_argument("--caption", metavar="TEXT", help="what the images show, for a prior that takes captions")
    parser.add_argument("--seed", metavar="SEED", help="of all noise, in [0, 2^64)")
    _add_device(parser)
    parser.add_argument("--background", metavar="COLOR", help="below transparent pixels (default: white)")


def _add_codec(parser: ArgumentParser) -> None:
    parser.add_argument("--config", type=_text, metavar="YAML", help="a config file; its model section is used")
    parser.add_argument(
        "--recipe", type=_text, metavar="NAME", help="a codec that ships with pscx, or a user recipe (default: default)"
    )


def _add_targets(parser: ArgumentParser) -> None:
    """At most one of them, else the config's target or quantizer stands."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quality", type=_number, metavar="Q", help="from 1 to 100, the same step for every image")
    group.add_argument("--bpp", type=_number, metavar="B", help="bits per pixel: at most, and within 2 %% of it")
    group.add_argument("--psnr", type=_number, metavar="DB", help="of the decoded image, within 0.1 dB")
    group.add_argument("--max-bytes", type=_positive, metavar="N", help="bytes of a file: at most, and within 2 %%")
    group.add_argument("--step", type=_number, metavar="STEP", help="step of the quantizer: smaller is finer")


def _add_decompress(parser: ArgumentParser) -> None:
    _add_files(parser, "STREAM", ".pscx files, folders of them, or - for standard input")
    parser.add_argument(
        "--samples", type=_positive, default=1, metavar="N", help="write N restorations: NAME.decoded-0.png, ..."
    )
    parser.add_argument(
        "--prior", type=_text, metavar="PATH", help="where to load the prior from: a folder or a hub id"
    )
    parser.add_argument(
        "--memory", type=_over_zero, metavar="GB", help="refuse streams that take more (default: what the machine has)"
    )
    _add_device(parser)
    _add_budget(parser)
    parser.add_argument(
        "--download", action="store_true", help="fetch a prior that is not on this machine from where it is by default"
    )
    parser.add_argument(
        "--partial", action="store_true", help="show what is whole of a cut or damaged stream, and say how much"
    )
    parser.add_argument(
        "--max-bytes",
        type=_positive,
        metavar="N",
        help="decode as if the stream ended after N bytes; implies --partial",
    )


def _add_budget(parser: ArgumentParser) -> None:
    text = "refuse streams that take more denoiser evaluations times pixels (default: 2^33, some hours on a CPU)"
    parser.add_argument("--budget", type=_over_zero, metavar="N", help=text)


def _add_ablate(parser: ArgumentParser) -> None:
    parser.epilog = f"--model.KEY, --data.KEY and --trainer.KEY VALUE set options that all cells share. {parser.epilog}"
    parser.add_argument(
        "--config", type=_text, metavar="YAML", required=True, help="a file with axes, as in configs/ablations"
    )
    parser.add_argument("--device", type=_text, metavar="NAME", help=DEVICES)
    parser.add_argument("--dry-run", action="store_true", help="list the cells, and which of them are done")
    parser.add_argument(
        "--launcher", choices=("local", "ray"), default="local", help="where cells run (default: in this process)"
    )
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="of the cluster (default: the one that is found)")
    parser.add_argument("--cpus-per-cell", type=_number, metavar="N", help="with --launcher ray (default: 1)")
    parser.add_argument("--gpus-per-cell", type=_number, metavar="N", help="with --launcher ray (default: 0)")


def _add_cite(parser: ArgumentParser) -> None:
    parser.epilog = f"{SETTINGS_HELP} {parser.epilog}"
    _add_codec(parser)


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=_path, metavar="RUN", help="folders that pscx test or ablate wrote")
    parser.add_argument(
        "-o", "--output", type=_path, metavar="FILE", help="the page (default: report.html, in RUN if there is one)"
    )
    parser.add_argument(
        "--images", type=_count, default=12, metavar="N", help="decode and show at most N streams (default: 12)"
    )
    parser.add_argument(
        "--originals", type=_path, metavar="FOLDER", help="where the originals are (default: what each run says)"
    )
    parser.add_argument(
        "--prior", type=_text, metavar="PATH", help="where to load the priors from (default: what each run says)"
    )
    _add_device(parser)
    _add_budget(parser)
    parser.add_argument("--force", action="store_true", help="overwrite outputs that exist")


def _add_demo(parser: ArgumentParser) -> None:
    _add_device(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="who may see it (default: this machine)")
    parser.add_argument("--port", type=_port, default=7860, metavar="PORT", help="of the page (default: 7860)")
    parser.add_argument(
        "--config", type=_text, metavar="YAML", help="a config file whose codec is offered beside the recipes"
    )
    parser.add_argument("--prior", type=_text, metavar="PATH", help="where to load the priors of uploaded streams from")
    parser.add_argument(
        "--max-bytes", type=_positive, default=20_000_000, metavar="N", help="of an upload (default: 20000000)"
    )
    parser.add_argument(
        "--max-pixels", type=_positive, default=1 << 20, metavar="N", help="of an image (default: 1048576)"
    )


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", type=_text, default="auto", metavar="NAME", help=DEVICES)


def _add_components(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a kind, such as sampler, or a component, such as ddrm")
    parser.add_argument("--kind", metavar="KIND", help="only components of this kind")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_files(parser: ArgumentParser, metavar: str, text: str) -> None:
    parser.add_argument("inputs", nargs="+", type=_path, metavar=metavar, help=text)
    text = "a file, - for standard output, or a folder: FOLDER/, or any name for several inputs"
    parser.add_argument("-o", "--output", type=_output, metavar="OUT", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite outputs that exist")
    text = (
        "N inputs at once share network calls (default: 8 of at most 128x128 pixels, else 1; as many as fit on a GPU)"
    )
    parser.add_argument("--batch", type=_positive, metavar="N", help=text)


def _path(text: str) -> Path:
    try:
        return named(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _output(text: str) -> Output:
    try:
        return Output.of(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _text(text: str) -> str:
    if not text:
        raise ArgumentTypeError("must not be empty")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be an integer of at least 1, got '{text}'")
    return int(text)


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ArgumentTypeError(f"must be an integer in 1..65535, got '{text}'")
    return int(text)


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
