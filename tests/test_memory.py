"""What memory is left is known before work begins, and a failed allocation is one sentence about one image."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import psc_of, write_codec

from pscx import Codec, ImageError, PscxError, load_codec, read_image
from pscx.cli.main import main
from pscx.runtime import memory
from pscx.runtime.memory import OutOfMemoryError, check_memory, memory_left, out_of_memory

GB = 10**9


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return load_codec(write_codec(tmp_path))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without limits whose files a test may write: 8 GB are available, and 1 GB of swap space."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "groups").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\nSwapFree: 1000000 kB\n")
    (tmp_path / "proc" / "self" / "status").write_text("Name:\tpython x\nVmSize:\t 1000000 kB\n")
    return tmp_path


def test_the_machine_is_a_bound(machine: Path) -> None:
    assert memory_left() == 9_000_000 * 1024
    (machine / "proc" / "meminfo").unlink()
    assert memory_left() == memory.machine_memory()


def test_the_limit_of_addresses_is_a_bound(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: {resource.RLIMIT_AS: (3 * GB, 4 * GB)}[which])
    assert memory_left() == 3 * GB - 1_000_000 * 1024
    monkeypatch.setattr(resource, "getrlimit", lambda which: (GB, GB))
    assert memory_left() == 0


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used", "spare"),
    [
        ("0::/a/b", "a", "memory.max", "memory.current", "inactive_file"),
        ("7:memory:/a", "memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_control_group_is_a_bound(machine: Path, line: str, folder: str, limit: str, used: str, spare: str) -> None:
    """Also one around that of the process; files that are kept in memory only as long as there is room do not count."""
    group = machine / "groups" / folder
    (group / "b").mkdir(parents=True)
    (machine / "proc" / "self" / "cgroup").write_text(f"{line}\n")
    (group / limit).write_text(f"{2 * GB}\n")
    (group / used).write_text(f"{GB}\n")
    assert memory_left() == GB
    (group / "memory.stat").write_text(f"anon 5\n{spare} 1000\n")
    assert memory_left() == GB + 1000
    (group / "b" / "memory.max").write_text("max\n")
    assert memory_left() == GB + 1000


def test_too_little_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_left", lambda device=None: 2 * GB)
    check_memory(2 * GB, "this")
    with pytest.raises(OutOfMemoryError, match=r"^this takes about 2\.1 GB of memory, but 2\.0 GB are left$"):
        check_memory(2_100_000_000, "this")


def unable() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    "fail", [unable, lambda: np.zeros(1 << 50), lambda: torch.zeros(1 << 50)], ids=["Python", "numpy", "torch"]
)
def test_a_failed_allocation_is_a_sentence(fail: object) -> None:
    assert callable(fail)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory while reading$"), out_of_memory("reading"):
        fail()


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), out_of_memory("reading"):
        raise RuntimeError("something else")


def test_a_picture_is_checked_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (512, 256)).save(tmp_path / "x.png")
    monkeypatch.setattr(memory, "memory_left", lambda device=None: 16 * 512 * 256 - 1)
    monkeypatch.setattr(Image.Image, "load", unable)
    with pytest.raises(ImageError, match=r"x\.png': reading 512x256 pixels takes about 0\.0 GB of memory, but 0\.0 GB"):
        read_image(tmp_path / "x.png")


def test_out_of_memory_while_a_picture_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    monkeypatch.setattr("pscx.images.reading.rgb", lambda *args: unable())
    with pytest.raises(ImageError, match=r"^out of memory while reading '.*x\.png'$"):
        read_image(tmp_path / "x.png")


def test_no_message_ends_in_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*args: object) -> None:
        raise IndexError

    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    monkeypatch.setattr("pscx.images.reading.rgb", silent)
    with pytest.raises(ImageError, match=r"cannot be decoded: IndexError$"):
        read_image(tmp_path / "x.png")


def test_encoding_is_checked_before_it_begins(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_left", lambda device=None: 10_000)
    monkeypatch.setattr("pscx.api.signal_of", lambda psc, pixels: unable())
    with pytest.raises(PscxError, match=r"^encoding 40x24 pixels takes about 0\.0 GB of memory, but 0\.0 GB are left$"):
        codec.compress(np.zeros((24, 40, 3), np.uint8))


@pytest.mark.parametrize("do", ["encode", "simulate", "decode"])
def test_out_of_memory_while_coding(codec: Codec, monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    given = codec.compress(image) if do == "decode" else image
    monkeypatch.setattr(type(psc_of(codec).sampler), "sample", lambda *args, **options: torch.zeros(1 << 50))
    with pytest.raises(OutOfMemoryError, match=r"^out of memory while (encoding 16x16 pixels|decoding the stream)$"):
        getattr(codec, do)(given)


def test_others_are_still_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_codec(tmp_path)
    for name, side in (("a", 16), ("large", 2048), ("z", 16)):
        Image.new("L", (side, side)).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(memory, "memory_left", lambda device=None: 16 * 2048 * 2048 - 1)
    assert main(["compress", *(str(tmp_path / f"{name}.png") for name in ("a", "large", "z")), "--config", config]) == 2
    done = capsys.readouterr()
    assert done.err.count("\n") == 1
    assert "large.png': reading 2048x2048 pixels takes about" in done.err
    assert (tmp_path / "a.pscx").exists()
    assert (tmp_path / "z.pscx").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of addresses")
def test_a_gigantic_picture_under_a_real_limit(tmp_path: Path) -> None:
    """A valid PNG of 2^28 pixels, under a limit of some 1 GB more than the interpreter has."""
    Image.new("1", (16384, 16384)).save(tmp_path / "x.png")
    code = f"""
import resource, pscx
from pathlib import Path
pscx.read_image
import pscx.images
size = int(Path("/proc/self/status").read_text().partition("VmSize:")[2].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 10**9, size + 10**9))
try:
    pscx.read_image({str(tmp_path / "x.png")!r})
except pscx.ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "reading 16384x16384 pixels takes about 4.3 GB of memory, but 1.0 GB are left" in done.stdout
