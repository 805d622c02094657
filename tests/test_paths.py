"""What compress and decompress take and write: folders, names, standard input and output, what is there already."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CODEC, write_codec

from pscx import load_codec, read_image
from pscx.cli import standard
from pscx.cli.main import main
from pscx.cli.up_to_date import UpToDate
from pscx.errors import PscxError
from pscx.format.container import pack, unpack
from pscx.images import decode_image
from pscx.rate_control import PSNR
from pscx.rate_control.trials import Setting
from pscx.runtime.files import ExistsError, check_output, write_whole
from pscx.runtime.progress import Bars

Capture = pytest.CaptureFixture[str]
CHEAP = CODEC.replace("iterations: 3", "iterations: 1").replace("samples: 2", "samples: 1")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_codec(tmp_path_factory.mktemp("config"), CHEAP)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``x.png`` of 16x16 pixels."""
    monkeypatch.chdir(tmp_path)
    save(Path("x.png"), 0)
    return tmp_path


def save(path: Path, seed: int, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG" if path.suffix in (".jpg", ".jfif") else "PNG")


def found(folder: Path | str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def refused(args: list[str], capsys: Capture) -> str:
    """One sentence on stderr, and nothing was written."""
    before = {name: Path(name).read_bytes() for name in found(".")}
    assert main(args) == 2
    assert {name: Path(name).read_bytes() for name in found(".")} == before
    message = capsys.readouterr().err
    assert message.startswith("pscx: ")
    assert message.count("\n") == 1
    return message


# Folders


@pytest.fixture
def tree(here: Path) -> Path:
    for number, name in enumerate(("1/x.png", "2/x.png", "2/y.jpg", "2/y.png", "z.jfif")):
        save(here / "d" / name, number)
    return here


STREAMS = {"1/x.pscx", "2/x.pscx", "2/y.jpg.pscx", "2/y.png.pscx", "z.pscx"}


def test_a_tree_is_kept(tree: Path, config: str) -> None:
    """Names that differ in the extension alone keep it."""
    assert main(["compress", "d", "-o", "o", "--config", config]) == 0
    assert found("o") == STREAMS
    codec = load_codec(config)
    assert Path("o/2/y.jpg.pscx").read_bytes() == codec.compress(read_image("d/2/y.jpg"))
    assert main(["decompress", "o", "-o", "back"]) == 0
    assert found("back") == {name.replace(".pscx", ".decoded.png") for name in STREAMS}


def test_an_input_that_is_given_twice_is_done_once(tree: Path, config: str, capsys: Capture) -> None:
    assert main(["compress", "d", "d/z.jfif", str(tree / "d" / "z.jfif"), "-o", "o", "--config", config]) == 0
    assert capsys.readouterr().out.count("z.pscx") == 1


def test_what_is_up_to_date_is_left(tree: Path, config: str, capsys: Capture) -> None:
    args = ["compress", "d", "-o", "o", "--config", config]
    assert main(args) == 0
    before = {name: os.stat(f"o/{name}").st_ino for name in STREAMS}
    save(tree / "d" / "new.png", 9)
    capsys.readouterr()
    assert main(args) == 0
    captured = capsys.readouterr()
    assert captured.err == "pscx: 5 streams are up to date and left as they are\n"
    assert [line.partition(":")[0] for line in captured.out.splitlines()] == ["o/new.pscx"]
    assert {name: os.stat(f"o/{name}").st_ino for name in STREAMS} == before
    assert main([*args, "--force"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], None),
        (["--step", "0.25"], None),
        (["--model.codec.batch", "4"], None),
        (["--step", "0.5"], "was made by another codec or with other options"),
        (["--seed", "1"], "was made by another codec or with other options"),
        (["--model.codec.coder", "raw"], "was made by another codec or with other options"),
        (["--model.codec.prior.correlation", "0.9"], "was made by another codec or with other options"),
        (["--quality", "50"], "was made by another codec or with other options"),
        (["--max-bytes", "20"], "was made by another codec or with other options"),
        (["--max-bytes", "size"], None),
        (["--max-bytes", "9000"], "does not show whether it meets the target"),
        (["--psnr", "20"], "does not show whether it meets the target"),
    ],
)
def test_a_stream_of_another_codec_is_never_replaced(
    options: list[str], changed: str | None, here: Path, config: str, capsys: Capture
) -> None:
    assert main(["compress", "x.png", "--config", config]) == 0
    capsys.readouterr()
    options = [str(Path("x.pscx").stat().st_size) if option == "size" else option for option in options]
    args = ["compress", "x.png", "--config", config, *options]
    if changed is None:
        assert main(args) == 0
        assert capsys.readouterr() == ("", "pscx: 1 stream is up to date and left as it is\n")
    else:
        assert f"'x.pscx' exists already and {changed}: give --force" in refused(args, capsys)


def test_a_stream_that_is_older_or_of_another_image_is_never_replaced(here: Path, config: str, capsys: Capture) -> None:
    args = ["compress", "x.png", "--config", config]
    assert main(args) == 0
    data, status = Path("x.pscx").read_bytes(), os.stat("x.pscx")
    capsys.readouterr()
    os.utime("x.png", ns=(0, status.st_mtime_ns + 1))
    assert "is older than its image" in refused(args, capsys)
    os.utime("x.png", ns=(0, status.st_mtime_ns))
    assert main(args) == 0
    assert "up to date" in capsys.readouterr().err
    Path("x.pscx").write_bytes(data[:-1])
    assert "is no whole stream" in refused(args, capsys)
    Path("x.pscx").write_bytes(data)
    save(here / "x.jpg", 1)
    os.utime("x.jpg", ns=(0, 0))
    assert "may be of another image of that name" in refused(["compress", "x.jpg", "--config", config], capsys)
    Path("x.jpg").unlink()
    save(here / "x.png", 0, side=24)
    os.utime("x.png", ns=(0, 0))
    assert "is of an image of another size" in refused(args, capsys)


def test_a_caption_is_compared(here: Path, capsys: Capture) -> None:
    """Through the comparison alone: no small prior takes captions on the command line."""
    codec = load_codec(write_codec(here, CHEAP))
    Path("x.pscx").write_bytes(codec.compress(read_image("x.png")))
    assert UpToDate(codec).difference(Path("x.png"), Path("x.pscx")) == ""
    header, payload = unpack(Path("x.pscx").read_bytes())
    Path("x.pscx").write_bytes(pack(replace(header, caption="a cat"), payload))
    assert "another codec" in UpToDate(codec).difference(Path("x.png"), Path("x.pscx"))


def test_one_name_that_is_too_long_ends_that_image_only(here: Path, config: str, capsys: Capture) -> None:
    """The stream's name has one byte more than the image's."""
    long = "x" * 251 + ".png"
    save(here / "d" / "a.png", 0)
    os.replace("d/a.png", f"d/{long}")
    save(here / "d" / "b.png", 0)
    assert main(["compress", "d", "--config", config]) == 2
    message = capsys.readouterr().err
    assert message == f"pscx: cannot write 'd/{'x' * 251}.pscx': File name too long\n"
    assert found("d") == {long, "b.png", "b.pscx"}
    assert main(["compress", f"{'x' * 300}.png", "--config", config]) == 2
    assert capsys.readouterr().err == f"pscx: cannot read '{'x' * 300}.png': File name too long\n"


def test_decompressing_again_leaves_what_is_there(tree: Path, config: str, capsys: Capture) -> None:
    assert main(["compress", "d/1", "-o", "o", "--config", config]) == 0
    assert main(["decompress", "o", "-o", "back"]) == 0
    Path("back/x.decoded.png").write_text("precious")
    assert main(["compress", "d/2", "-o", "o/2", "--config", config]) == 0
    capsys.readouterr()
    assert main(["decompress", "o", "-o", "back"]) == 2
    assert capsys.readouterr().err.startswith("pscx: 'back/x.decoded.png' exists already: give --force")
    assert Path("back/x.decoded.png").read_text() == "precious"
    assert len(found("back")) == 4


@pytest.mark.parametrize("options", [[], ["--force"], ["-o", "."], ["-o", ".", "--force"], ["--samples", "2"]])
def test_an_original_is_never_hit(options: list[str], here: Path, config: str) -> None:
    before = Path("x.png").read_bytes()
    assert main(["compress", "x.png", "--config", config]) == 0
    assert main(["decompress", "x.pscx", *options]) == 0
    assert Path("x.png").read_bytes() == before
    assert found(".") > {"x.decoded.png"} or found(".") > {"x.decoded-0.png", "x.decoded-1.png"}


# Names of outputs


def test_a_slash_at_the_end_makes_a_folder(here: Path, config: str) -> None:
    assert main(["compress", "x.png", "-o", "a/b/", "--config", config]) == 0
    assert main(["compress", "x.png", "-o", "c/.", "--config", config]) == 0
    assert main(["decompress", "a/b/x.pscx", "-o", "back/"]) == 0
    assert found(".") == {"x.png", "a/b/x.pscx", "c/x.pscx", "back/x.decoded.png"}


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["x.png", "-o", "out.jpg"], "'out.jpg': a stream name must end in .pscx"),
        (
            ["x.png", "-o", "streams"],
            "'streams': a stream name must end in .pscx, a folder name in a slash",
        ),
        (["x.png", "-o", "x.png/"], "'x.png' is a file: a slash at its end means a folder"),
        (["x.png", "-o", "x.png/y.pscx"], "cannot write 'x.png/y.pscx': 'x.png' is not a folder"),
        (["x.png", "-o", "x.png/a/b/"], "cannot write 'x.png/a/b': 'x.png' is not a folder"),
        (["x.png", "y.png", "-o", "out.pscx"], "'out.pscx' is the name of a file: several inputs need a folder"),
        ([".", "-o", "out.png"], "'out.png' is the name of a file: several inputs need a folder"),
        (["x.png", "y.png", "-o", "-"], "'-' is standard output, which takes one file"),
        (["-", "x.png"], "'-', standard input, must be the only input"),
        (["-", "-o", "streams/"], "'-' is not a regular file: name the output with -o (- is standard output)"),
        ([""], "argument IMAGE: must not be empty"),
        (["x.png", ""], "argument IMAGE: must not be empty"),
        (["x.png", "-o", ""], "argument -o/--output: must not be empty"),
        (["x.png", "--recipe", ""], "argument --recipe: must not be empty"),
        (["x.png", "--config", ""], "argument --config: must not be empty"),
    ],
)
def test_outputs_of_compress_that_are_refused(
    args: list[str], part: str, here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work."""
    monkeypatch.setattr("pscx.api.build_codec", lambda *_: pytest.fail("work began"))
    assert part in refused(["compress", *args], capsys)


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["x.pscx", "-o", "y.pscx"], "must end in .png or .webp, got '.pscx'"),
        (["x.pscx", "-o", "y"], "an image name must end in .png or .webp, a folder name in a slash"),
        (["x.pscx", "-o", "-", "--samples", "2"], "'-' is standard output, which takes one file"),
        (["x.pscx", "x.pscx", "-o", "y.png"], "'y.png' is the name of a file: several inputs need a folder"),
        (["x.pscx", "-o", "x.png/y.png"], "cannot write 'x.png/y.png': 'x.png' is not a folder"),
        ([""], "argument STREAM: must not be empty"),
        (["x.pscx", "--prior", ""], "argument --prior: must not be empty"),
    ],
)
def test_outputs_of_decompress_that_are_refused(args: list[str], part: str, here: Path, capsys: Capture) -> None:
    Path("x.pscx").write_bytes(b"never read")
    assert part in refused(["decompress", *args], capsys)


@pytest.mark.parametrize("command", ["info", "report"])
def test_an_empty_input_is_refused(command: str, here: Path, capsys: Capture) -> None:
    assert "must not be empty" in refused([command, ""], capsys)


# Standard input and output


class Pipe:
    """Stands for a standard stream of bytes."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(data), terminal

    def isatty(self) -> bool:
        return self._terminal

    def flush(self) -> None: ...

    def write(self, text: str) -> None:
        pytest.fail(f"text among the data: {text}")


@pytest.mark.parametrize("args", [["-"], ["-", "-o", "-"], ["x.png", "-o", "-"]])
def test_standard_input_and_output(
    args: list[str], here: Path, config: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, shown = Pipe(), Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Pipe(Path("x.png").read_bytes()))
        patch.setattr(sys, "stdout", written)
        assert main(["compress", *args, "--config", config]) == 0
        stream = written.buffer.getvalue()
        patch.setattr(sys, "stdin", Pipe(stream))
        patch.setattr(sys, "stdout", shown)
        assert main(["decompress", "-"]) == 0
    codec = load_codec(config)
    assert stream == codec.compress(read_image("x.png"))
    assert np.array_equal(decode_image(shown.buffer.getvalue(), "-"), codec.decompress(stream))
    assert found(".") == {"x.png"}
    assert capsys.readouterr().err == f"-: {len(stream)} bytes, {8 * len(stream) / 256:.4f} bpp\n"
    monkeypatch.setattr(sys, "stdin", Pipe(stream))
    assert main(["info", "-"]) == 0
    assert "16 x 16 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_terminals_and_nothing_are_refused(
    command: str, here: Path, config: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--config", config] if command == "compress" else []
    name = {"compress": "y.pscx", "decompress": "y.png"}[command]
    monkeypatch.setattr(sys, "stdin", Pipe(terminal=True))
    assert "'-' reads standard input, and that is a terminal" in refused([command, "-", "-o", name, *options], capsys)
    monkeypatch.setattr(sys, "stdin", Pipe())
    assert "'-' is empty" in refused([command, "-", "-o", name, *options], capsys)
    monkeypatch.setattr(sys, "stdin", Pipe(b"what is no image"))
    assert "pscx: '-' is not a" in refused([command, "-", "-o", name, *options], capsys)
    monkeypatch.setattr(sys, "stdout", Pipe(terminal=True))
    assert "'-' writes standard output, and that is a terminal" in refused(
        [command, "x.png", "-o", "-", *options], capsys
    )


def test_input_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(bytes(11)))
    with pytest.raises(PscxError, match=r"^standard input exceeds 10 bytes, the limit for an input$"):
        standard.read_standard(10)


def test_a_file_may_be_named_like_standard_output(here: Path, config: str) -> None:
    Path("-").mkdir()
    save(here / "-" / "x.png", 1)
    assert main(["compress", "./-", "--config", config]) == 0
    assert found("-") == {"x.png", "x.pscx"}


def test_pipes_are_read_once_and_links_to_standard_output_stay(here: Path, config: str) -> None:
    os.mkfifo("pipe")
    Path("out").symlink_to("/proc/self/fd/1" if Path("/proc/self/fd/1").exists() else "/dev/stdout")
    args = f"compress pipe -o out --force --batch 2 --config {config}".split()
    writer = subprocess.Popen(["cp", "x.png", "pipe"])
    done = subprocess.run([sys.executable, "-m", "pscx", *args], capture_output=True, check=False)
    assert writer.wait() == 0
    assert (done.returncode, done.stdout) == (0, load_codec(config).compress(read_image("x.png")))
    assert Path("out").is_symlink()


def test_a_pipe_names_no_output(here: Path, capsys: Capture) -> None:
    os.mkfifo("pipe")
    assert main(["compress", "pipe", "--recipe", "none"]) == 2
    assert capsys.readouterr().err == (
        "pscx: 'pipe' is not a regular file: name the output with -o (- is standard output)\n"
    )


# Writing


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "sub" / "file.bin", tmp_path / "link.bin"
    link.symlink_to(target)
    write_whole(link, b"first")  # the link led nowhere
    with pytest.raises(ExistsError):
        write_whole(link, b"second")
    write_whole(link, b"third", force=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"third"
    assert {path.name for path in target.parent.iterdir()} == {"file.bin"}


def test_links_that_lead_to_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(PscxError, match=r"cannot write '.*circle': Too many levels of symbolic links"):
        write_whole(tmp_path / "circle", b"", force=True)
    with pytest.raises(PscxError, match="null' is not a regular file"):
        write_whole(tmp_path / "null", b"", force=True)
    assert (tmp_path / "circle").is_symlink()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_link_to_an_open_file_without_a_name_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "gone").open("wb") as file:
        (tmp_path / "gone").unlink()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(PscxError, match="its link points to a deleted file"):
            write_whole(tmp_path / "link", b"", force=True)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system without hard links."""
    path = tmp_path / "x.bin"
    link = os.link

    def late(source: Path, target: Path) -> None:
        path.write_bytes(b"another's")
        if not links:
            raise OSError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ExistsError, match="was created in the meantime"):
        write_whole(path, b"ours")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.bin", b"another's")]
    write_whole(path, b"ours", force=True)
    assert path.read_bytes() == b"ours"


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    write_whole(tmp_path / "x.bin", b"data")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.bin", b"data")]
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PscxError, match="Operation not permitted"):
        write_whole(tmp_path / "y.bin", b"data")
    assert [file.name for file in tmp_path.iterdir()] == ["x.bin"]


def test_a_folder_that_may_not_be_written_to_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PscxError, match=r"the folder '.*' is not writable"):
        check_output(tmp_path / "a" / "x.bin")


# What is printed


def test_a_console_that_cannot_print_a_name_gets_codes(here: Path, config: str) -> None:
    name = os.fsdecode("é".encode() + b"\xff.png")
    os.replace("x.png", name)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "pscx", "compress", name, "gone-é.png", "--config", config]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.stdout.startswith(b"\\xe9\\udcff.pscx: ")
    assert done.stderr == b"pscx: no such file: 'gone-\\xe9.png'\n"
    assert done.returncode == 2


def test_names_with_brackets_can_be_shown(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    with Bars("compress", 1) as bars:
        bar = bars.begin("[/a].png")
        bar.trial(2, 0.5)
        bar.end()
    assert "[/a].png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(48.1, "48.13 dB"), (48, "48.13 dB, the closest to 48"), (50.25, "48.13 dB, the closest to 50.25")],
)
def test_a_psnr_that_was_not_met_is_told(wanted: float, said: str) -> None:
    """The run's image is off by one level everywhere."""
    pixels = np.full((16, 16, 3), 9, np.uint8)
    run = SimpleNamespace(images=lambda count: [pixels + np.uint8(1)] * count)
    trials: Any = SimpleNamespace(pixels=pixels, run=lambda setting: run)
    assert PSNR(wanted).outcome(trials, Setting(1.0)) == said
