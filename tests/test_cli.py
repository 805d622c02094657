"""The commands on files, through ``main`` as users call it: what they write, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny import CODEC, save_prior, write_codec

from pscx import __version__, load_codec, read_image
from pscx.cli import commands
from pscx.cli.main import main, run
from pscx.data.folder import BUNDLED

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_codec(tmp_path_factory.mktemp("config"))


@pytest.fixture
def photo(image_folder: Path) -> Path:
    return image_folder / "a.png"


@pytest.fixture
def stream(photo: Path, config: str, tmp_path: Path) -> Path:
    path = tmp_path / "photo.pscx"
    path.write_bytes(load_codec(config).compress(read_image(photo)))
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(args: list[str | Path], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail: exit code 2, one sentence, no traceback, no file written or lost."""
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    assert main([str(arg) for arg in args]) == 2
    after = {name: (folder / name).read_bytes() for name in files(folder)}
    assert after == before
    message = capsys.readouterr().err
    assert message.startswith("pscx: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


def test_a_new_process_decompresses_what_was_simulated(photo: Path, config: str, tmp_path: Path) -> None:
    """Nothing but the stream goes over to the other process."""
    assert main(["compress", str(photo), "-o", str(tmp_path / "x.pscx"), "--config", config]) == 0
    command = [sys.executable, "-W", "error", "-m", "pscx.cli.main", "decompress", "x.pscx", "--samples", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x.decoded-0.png\nx.decoded-1.png\n", "")
    expected = load_codec(config).simulate(read_image(photo), samples=2)
    assert (tmp_path / "x.pscx").read_bytes() == expected.data
    for index, image in enumerate(expected.images):
        assert np.array_equal(read_image(tmp_path / f"x.decoded-{index}.png"), image)


def test_compress_says_name_bytes_and_rate(photo: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo), "--config", config]) == 0
    output = photo.with_suffix(".pscx")
    size = output.stat().st_size
    assert capsys.readouterr().out == f"{output}: {size} bytes, {size / 128:.4f} bpp\n"


def test_a_folder_goes_to_a_folder(image_folder: Path, config: str, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["compress", str(image_folder), "-o", str(out), "--config", config]) == 0
    assert files(out) == {"a.pscx", "b.pscx", "sub/a.pscx"}
    assert main(["decompress", str(out / "a.pscx"), str(out / "b.pscx"), "-o", str(back)]) == 0
    assert files(back) == {"a.decoded.png", "b.decoded.png"}
    assert read_image(back / "b.decoded.png").shape == (32, 48, 3)


def test_outputs_lie_beside_their_inputs(image_folder: Path, config: str) -> None:
    assert main(["compress", str(image_folder), "--config", config]) == 0
    assert {name for name in files(image_folder) if name.endswith("pscx")} == {"a.pscx", "b.pscx", "sub/a.pscx"}


def test_options_of_compress(photo: Path, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.pscx"
    options = ["--step", "0.5", "--seed", "7", "--model.codec.samples", "3", "--model.codec.coder=raw"]
    assert main(["compress", str(photo), "-o", str(output), "--config", config, *options]) == 0
    capsys.readouterr()
    assert main(["info", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameter"], facts["seed"], facts["spec"]["samples"]) == (0.5, 7, 3)
    assert facts["spec"]["coder"] == {"name": "raw"}
    assert (facts["file"], facts["bytes"]) == (str(output), output.stat().st_size)


def test_the_default_is_the_default_recipe(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = save_prior(tmp_path / "prior", 1)
    output = tmp_path / "x.pscx"
    assert main(["compress", str(photo), "-o", str(output), "--model.codec.prior.path", prior]) == 0
    assert main(["info", str(output)]) == 0
    text = capsys.readouterr().out
    assert "codec           recipe default\n" in text
    assert "step            0.3" in text
    assert "arithmetic      the same on every machine\n" in text
    assert main(["decompress", str(output), "--prior", prior]) == 0
    expected = load_codec("default", prior={"path": prior}).simulate(read_image(photo)).pixels
    assert np.array_equal(read_image(tmp_path / "x.decoded.png"), expected)


def test_info_as_text(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(stream)]) == 0
    text = capsys.readouterr().out
    assert f"{stream}\n" in text
    for part in (
        "32 x 32 pixels",
        f"{stream.stat().st_size} bytes",
        "bpp",
        "step            0.25",
        "arithmetic      torch ",
    ):
        assert part in text
    assert "  prior: {name: gaussian, correlation: 0.95, color: 0.9, deviation: 0.5}\n" in text


def test_components_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components"]) == 0
    text = capsys.readouterr().out
    for part in (
        "prior:\n",
        "  ddpm: Pixel-space DDPM",
        "    path = 'embedded'",
        "coder:\n",
        "  raw: ",
        "    steps = 50",
    ):
        assert part in text


def test_version_and_help_need_no_torch() -> None:
    code = f"import sys; sys.argv[1:] = ['--version']\nfrom pscx.cli.main import main\nassert main() == 0\n{NO_TORCH}"
    assert run_code(code) == f"pscx {__version__}\n"
    assert "compress" in run_code(f"from pscx.cli.main import main\nassert main(['--help']) == 0\n{NO_TORCH}")


def test_a_missing_file_needs_no_torch() -> None:
    for command in ("compress", "decompress", "info"):
        assert run_code(f"from pscx.cli.main import main\nassert main(['{command}', 'nowhere']) == 2\n{NO_TORCH}") == ""


def test_the_package_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "pscx", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pscx {__version__}\n", "")


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_an_input_is_never_overwritten(
    command: str, force: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its own output, nor by another's; however the path is written."""
    monkeypatch.chdir(tmp_path)
    suffix, other = {"compress": (".pscx", ".png"), "decompress": (".decoded.png", ".pscx")}[command]
    own = f"b.{suffix.rpartition('.')[2]}"
    names = (f"a{suffix}", f"a{other}", own)
    for name in names:
        Path(name).write_bytes(name.encode())
    Path("link").symlink_to(tmp_path, target_is_directory=True)
    calls = [([own, "-o", str(tmp_path / own)], f"'{tmp_path / own}'"), ([own, "-o", f"link/{own}"], f"'link/{own}'")]
    calls += [([f"a{other}", f"a{suffix}"], f"'a{suffix}'")]
    for args, output in calls:
        assert main([command, *args, *force]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"pscx: {output} is an input and also the output of '")
        assert error.endswith(": give another name with -o\n")
    Path("link").unlink()
    assert {file.name: file.read_bytes().decode() for file in tmp_path.iterdir()} == {name: name for name in names}


NO_TORCH = "import sys\nassert not {'torch', 'lightning', 'diffusers'} & set(sys.modules)"


def run_code(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_reader_that_stops_early_is_no_error(stream: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pscx.cli.main", "info", str(stream)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "no such file"), (b"", "is empty"), (b"hello", "is not a PNG"), ("cut", "is damaged or cut short")],
)
def test_compress_refuses_what_is_no_image(
    content: bytes | str | None,
    part: str,
    photo: Path,
    config: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(photo.read_bytes()[:-200] if isinstance(content, str) else content)
    message = refused(["compress", bad, "--config", config], tmp_path, capsys)
    assert part in message
    assert str(bad) in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"hello", "is not a pscx stream"),
        ("cut", "cut short"),
        ("flipped", "is damaged"),
        ("version", "version 9"),
    ],
)
@pytest.mark.parametrize("command", ["decompress", "info"])
def test_decompress_and_info_refuse_what_is_no_stream(
    command: str,
    content: bytes | str | None,
    part: str,
    stream: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = stream.read_bytes()
    special = {
        "cut": data[:-3],
        "flipped": data[:40] + bytes([data[40] ^ 4]) + data[41:],
        "version": data[:3] + b"\x90" + data[4:],
    }
    bad = tmp_path / "bad.pscx"
    if content is not None:
        bad.write_bytes(special[content] if isinstance(content, str) else content)
    message = refused([command, bad], tmp_path, capsys)
    assert part in message
    assert message.startswith("pscx: no such file" if content is None else f"pscx: '{bad}' ")


def test_every_byte_of_a_stream_is_guarded(stream: Path, tmp_path: Path) -> None:
    data = stream.read_bytes()
    for place in range(len(data)):
        stream.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert main(["info", str(stream)]) == 2


def test_the_stream_of_another_prior_needs_its_path(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (save_prior(tmp_path / str(seed), seed) for seed in (1, 2))
    config = write_codec(tmp_path, CODEC.replace("prior: gaussian", f"prior: {{name: ddpm, path: {first}}}"))
    output = tmp_path / "x.pscx"
    assert main(["compress", str(photo), "-o", str(output), "--config", config]) == 0
    capsys.readouterr()
    message = refused(["decompress", output, "--prior", second], tmp_path, capsys)
    assert "made with another prior (fingerprint " in message
    assert "--prior PATH" in message
    assert "no diffusers pixel prior" in refused(["decompress", output, "--prior", tmp_path], tmp_path, capsys)
    assert main(["decompress", str(output), "--prior", first]) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model.codec.sampler", "ddrn"], "unknown sampler 'ddrn' (did you mean 'ddrm'?)"),
        (["--model.codec.sampler.stepz", "3"], "no option 'stepz'"),
        (["--model.codec.samples", "few"], "--model.codec.samples must be an integer, got 'few'"),
        (["--model.codec.seed", "-1"], "seed must lie in [0, 2^64)"),
        (["--seed", "x"], "must be an integer, got 'x'"),
        (["--step", "0"], "step"),
        (["--quality", "0"], "pscx: --quality: model.target.value must lie in 1..100, got 0.0"),
        (["--bpp", "nan"], "pscx: --bpp: model.target.value must be over 0 and finite, got nan"),
        (["--max-bytes", "9" * 400], "--max-bytes: must have at most 18 digits, got 400"),
        (["--step", "small"], "must be a number, got 'small'"),
        (["--stepp", "3"], "compress has no option '--stepp' (did you mean '--step'?)"),
        (["--modle.samples", "3"], "no option '--modle.samples' (did you mean '--model'?)"),
        (["--trainer.max_steps", "3"], "no option '--trainer.max_steps'"),
        (["--recipe", "papper"], "unknown recipe 'papper'"),
        (["--config", "nowhere.yaml"], "no such config file"),
        (["-o"], "expected one argument"),
    ],
)
def test_compress_refuses_wrong_options(
    options: list[str], part: str, photo: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["compress", photo, "--config", config, *options], photo.parent, capsys)
    assert part in message


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ([], "COMMAND"),
        (["compres"], "unknown command 'compres' (did you mean 'compress'?)"),
        (["--versoin"], "pscx has no option '--versoin' (did you mean '--version'?)"),
        (["decompress", "x", "--sampels=2"], "decompress has no option '--sampels=2' (did you mean '--samples'?)"),
        (["test", "--confg", "x"], "test has no option '--confg' (did you mean '--config'?)"),
        (["fit", "--modle.prior", "ddpm"], "fit has no option '--modle' (did you mean '--model'?)"),
        (["predict", "--trainr.max_steps=3"], "predict has no option '--trainr' (did you mean '--trainer'?)"),
        (["ablate", "--confg", "x"], "ablate has no option '--confg' (did you mean '--config'?)"),
        (["ablate", "--config", "x", "--modle.samples=2"], "'--modle.samples=2' (did you mean '--model'?)"),
        (["components", "--kin", "sampler"], "components has no option '--kin' (did you mean '--kind'?)"),
        (["decompress", "x", "--samples", "0"], "must be an integer in 1..1000, got '0'"),
        (["decompress", "x", "--samples", "1001"], "must be an integer in 1..1000, got '1001'"),
        (["decompress", "x", "--samples", "9" * 5000], "--samples: must have at most 18 digits, got 5000"),
        (["decompress", "x", "--max-bytes", "9" * 400], "--max-bytes: must have at most 18 digits, got 400"),
        (["decompress", "x", "--config", "y"], "decompress has no option '--config'"),
        (["info", "--jsn", "x"], "info has no option '--jsn' (did you mean '--json'?)"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    args: list[str | Path], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part in refused(args, tmp_path, capsys)


def test_names_after_two_dashes_are_files(image_folder: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder)
    (image_folder / "a.png").rename("--model.png")
    assert main(["compress", "--config", config, "--", "--model.png"]) == 0
    assert main(["decompress", "--", "--model.pscx"]) == 0
    assert (image_folder / "--model.decoded.png").is_file()


def test_a_folder_without_images_is_refused(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(["compress", tmp_path / "empty", "--config", config], tmp_path, capsys)
    assert "holds no .pscx files" in refused(["decompress", tmp_path / "empty"], tmp_path, capsys)


def test_outputs_are_checked_before_any_work(
    image_folder: Path, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output that exists keeps its content, and the other images are done."""
    (image_folder / "b.pscx").write_text("precious")
    begun: list[str] = []

    def begin(*args: Any) -> Any:
        begun.append(capsys.readouterr().err)
        return args[3]

    monkeypatch.setattr(commands, "_each", begin)
    assert main(["compress", str(image_folder), "--config", config]) == 1  # the number that was refused
    expected = "b.pscx' exists already and is no whole stream: give --force to overwrite it, or choose another name\n"
    assert begun[0].endswith(expected)
    monkeypatch.undo()
    assert main(["compress", str(image_folder), "--config", config]) == 2
    assert (image_folder / "b.pscx").read_text() == "precious"
    assert {name for name in files(image_folder) if name.endswith("pscx")} == {"a.pscx", "b.pscx", "sub/a.pscx"}


def test_force_overwrites(stream: Path, photo: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = stream.read_bytes()
    args = ["compress", str(photo), "-o", str(stream), "--config", config, "--step", "0.5"]
    assert "exists already" in refused([*args], stream.parent, capsys)
    assert main([*args, "--force"]) == 0
    assert len(stream.read_bytes()) < len(before)


def test_two_inputs_never_share_an_output(
    image_folder: Path, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [image_folder / "a.png", image_folder / "sub" / "a.png"]
    message = refused(["compress", *inputs, "-o", tmp_path / "out", "--config", config], tmp_path, capsys)
    assert "would both become" in message


def test_several_inputs_need_a_folder(
    image_folder: Path, config: str, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args: list[str | Path] = ["compress", image_folder, "-o", stream, "--config", config]
    assert "several inputs need a folder" in refused([*args], image_folder, capsys)


@pytest.mark.parametrize("memory", ["nan", "inf", "-1", "0", "x"])
def test_a_bound_on_memory_is_a_number(memory: str, stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decompress", str(stream), f"--memory={memory}"]) == 2
    assert "--memory: must be a" in capsys.readouterr().err


def test_an_image_is_written_without_loss_or_not_at_all(
    stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "JPEG would change" in refused(["decompress", stream, "-o", tmp_path / "x.jpg"], tmp_path, capsys)


def test_one_bad_file_does_not_stop_the_others(
    image_folder: Path, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, missing = image_folder / "bad.png", tmp_path / "missing.png"
    bad.write_bytes(b"no image")
    inputs = [str(image_folder / "a.png"), str(bad), str(missing), str(image_folder / "b.webp")]
    assert main(["compress", *inputs, "-o", str(tmp_path / "out"), "--config", config]) == 2
    assert files(tmp_path / "out") == {"a.pscx", "b.pscx"}
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"pscx: no such file: '{missing}'"
    assert f"'{bad}' is not a PNG" in second


def test_an_interrupt_leaves_nothing_and_says_130(
    photo: Path, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pscx.api.Codec.encode", stop)
    assert main(["compress", str(photo), "--config", config]) == 130
    assert not photo.with_suffix(".pscx").exists()
    assert capsys.readouterr().err == "pscx: interrupted\n"


def test_a_bug_keeps_its_traceback(photo: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pscx.api.Codec.encode", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["compress", str(photo), "--config", config])


def test_nothing_is_drawn_where_stderr_is_no_terminal(
    photo: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(photo), "--config", config]) == 0
    assert capsys.readouterr().err == ""


def test_bars_are_drawn_on_a_terminal(
    photo: Path, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    assert main(["compress", str(photo), "--config", config]) == 0
    captured = capsys.readouterr()
    assert "compress" in captured.err
    assert "a.png" in captured.err
    assert "3/3" in captured.err


def test_images_in_odd_modes_are_taken(tmp_path: Path, config: str) -> None:
    Image.new("L", (16, 20), 90).save(tmp_path / "grey.png")
    assert main(["compress", str(tmp_path / "grey.png"), "--config", config]) == 0
    assert main(["decompress", str(tmp_path / "grey.pscx"), "-o", str(tmp_path / "back.webp")]) == 0
    assert read_image(tmp_path / "back.webp").shape == (20, 16, 3)


def test_info_tells_of_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bits add up to the payload, and evaluations to those that a decoder takes."""
    codec = load_codec("fast", iterations=3, step=2.0)
    data = codec.compress(read_image(BUNDLED / "chelsea.png")[:32, :32])
    (tmp_path / "x.pscx").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert main(["info", "x.pscx", "--segments", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["nfe"] for one in facts["segments"]] == [0, 4, 4]
    assert facts["payload_bytes"] == pytest.approx(sum(one["bits"] for one in facts["segments"]) / 8, abs=2)
    assert main(["info", "x.pscx", "--segments"]) == 0
    assert "segment 2 " in capsys.readouterr().out
    assert main(["info", "x.pscx", "--prior", "elsewhere"]) == 2
    assert "--prior needs --segments" in capsys.readouterr().err


def test_standard_input_and_output_may_be_closed(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell closes them with ``<&-`` and ``>&-``; Python then has none."""
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, None)
    for args, says in (
        (["compress", "-"], "'-' writes"),
        (["compress", "-", "-o", str(tmp_path / "x.pscx")], "'-' reads"),
    ):
        monkeypatch.setattr(sys, "argv", ["pscx", *args, "--config", write_codec(tmp_path)])
        with pytest.raises(SystemExit) as end:
            run()
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"pscx: {says} standard ")
        assert "put, and that is closed: redirect" in error


def test_a_name_that_begins_with_a_dash_is_told(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(photo, "-a.png")
    config = ["--config", write_codec(tmp_path)]
    assert main(["compress", "-a.png", *config]) == 2
    assert capsys.readouterr().err == "pscx: '-a.png' begins with a dash, as options do: write './-a.png'\n"
    assert main(["compress", "./-a.png", *config]) == 0
    assert main(["compress", "--force", *config, "--", "-a.png"]) == 0


def test_a_zero_byte_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "a\0.png"]) == 2
    assert capsys.readouterr().err == "pscx: an argument holds a zero byte, which no name has\n"
