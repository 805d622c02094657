"""``pscx demo`` in a browser: what a visitor does with the page, and who may reach it."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import Visit, visited
from PIL import Image
from tiny import write_codec

from pscx.api import Decompressor
from pscx.data.folder import BUNDLED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio", reason="the extra 'demo' is not installed")

MAX_BYTES, MAX_PIXELS = 30_000, 2000


# What Gradio 6.31 itself does on any page: a warning, and the stream of events that it closes when all is done.
GRADIOS_OWN = re.compile(r"warning: Method not implemented\.|http://\S+/gradio_api/queue/data\?\S+: net::ERR_ABORTED")


def problems(visit: Visit) -> list[str]:
    return [problem for problem in visit.problems if not GRADIOS_OWN.fullmatch(problem)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``codec.yaml``, a photograph of 48x32 pixels, and one that is larger than the page takes."""
    folder = tmp_path_factory.mktemp("demo")
    write_codec(folder)
    with Image.open(BUNDLED / "chelsea.png") as image:
        image.crop((40, 20, 88, 52)).save(folder / "cat.png")
        image.save(folder / "large.png", compress_level=0)
    assert (folder / "large.png").stat().st_size > MAX_BYTES
    return folder


def command(lab: Path, port: int) -> list[str]:
    """``pscx demo`` of the codec at a port.

    It hears SIGINT even where these tests do not: a shell has what it runs in the background ignore that, children too.
    """
    listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    run = [sys.executable, "-c", f"import signal, sys; {listen}; from pscx.cli.main import run; sys.exit(run())"]
    return [*run, "demo", "--config", str(lab / "codec.yaml"), "--port", str(port)]


@pytest.fixture(scope="module")
def address(lab: Path) -> Iterator[str]:
    """Where ``pscx demo``, in a process of its own, serves the page; it ends by Ctrl-C and says nothing more."""
    limits = ["--max-bytes", str(MAX_BYTES), "--max-pixels", str(MAX_PIXELS)]
    asked = [*command(lab, free_port()), *limits]
    server = subprocess.Popen(asked, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.endswith("(Ctrl-C ends it)\n"):
        server.kill()
        pytest.fail(line + server.communicate()[1])
    yield line.split()[0]
    server.send_signal(signal.SIGINT)
    rest = server.communicate(timeout=60)  # it waits for its threads, which are slow on a busy machine
    assert rest == ("", "")
    assert server.returncode == 0


def saved(page: Page, tab: str) -> bytes:
    """What the link of a tab saves."""
    with page.expect_download() as download:
        page.click(f"#{tab}-file a.file")
    return Path(download.value.path()).read_bytes()


def upload(page: Page, path: Path) -> None:
    """Give the tab that is open a file, and wait until the page has it."""
    page.locator("input[type=file]:visible, [role=tabpanel]:visible input[type=file]").first.set_input_files(path)
    page.locator("[role=tabpanel]:visible").get_by_text(path.suffix).first.wait_for()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_visit(address: str, lab: Path, chromium: Browser, width: int, tmp_path: Path) -> None:
    """By the keyboard alone, but for the choice of files."""
    with visited(chromium, address, width=width, accept_downloads=True) as visit:
        page = visit.page
        page.get_by_role("button", name="Compress").wait_for()
        assert page.title() == "pscx"
        upload(page, lab / "cat.png")
        slider = page.get_by_role("slider").first  # of the quality
        slider.focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        assert slider.input_value() == "70"
        page.evaluate(
            """() => {
                window.steps = new Set();
                new MutationObserver(() => {
                    const text = document.querySelector("#compress-status")?.textContent.trim();
                    if (text) window.steps.add(text);
                }).observe(document.body, {subtree: true, childList: true, characterData: true});
            }"""
        )
        page.get_by_role("button", name="Compress").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#compress-status >> text=/^Done/")
        assert any("Decoding, after segment" in step for step in page.evaluate("[...window.steps]"))
        pictures = page.locator("#compress-pictures img")
        alts = [pictures.nth(index).get_attribute("alt") or "" for index in range(pictures.count())]
        assert [alt.split(":")[0] for alt in alts] == ["Original", "pscx", "JPEG", "WebP"]
        assert page.evaluate("[...document.images].every(image => image.alt)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for index in range(pictures.count()):
            box = pictures.nth(index).bounding_box()
            assert box is not None
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
            assert box["width"] <= 3 * 48
            assert box["width"] / box["height"] == pytest.approx(48 / 32, rel=0.05)

        data = saved(page, "compress")
        assert f"{len(data)} bytes" in alts[1]
        (tmp_path / "back.pscx").write_bytes(data)
        page.get_by_role("tab", name="Decode").focus()
        page.keyboard.press("Enter")
        button = page.get_by_role("button", name="Decode", exact=True)
        button.wait_for()
        upload(page, tmp_path / "back.pscx")
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#decode-status >> text=/^Done/")
        with Image.open(io.BytesIO(saved(page, "decode"))) as image:
            np.testing.assert_array_equal(np.array(image), Decompressor().decompress(data))
        assert problems(visit) == []
        assert all(url.startswith((address, "data:", "blob:")) for url in visit.requests)


def test_the_perception_is_hidden_until_it_is_asked_for(address: str, chromium: Browser) -> None:
    with visited(chromium, address) as visit:
        page = visit.page
        for tab in ("Compress", "Decode"):
            page.get_by_role("tab", name=tab).click()
            choose = page.locator("input[type=checkbox]:visible").last
            slider = page.get_by_role("slider", name="Perception").locator("visible=true")
            choose.wait_for()
            assert slider.count() == 0
            choose.check()
            slider.wait_for()
            assert slider.is_enabled()
            choose.uncheck()
            assert slider.count() == 0
        assert problems(visit) == []


def test_a_wrong_file_is_one_sentence(address: str, chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "notes.pscx").write_text("no stream")
    with visited(chromium, address) as visit:
        page = visit.page
        page.get_by_role("tab", name="Decode").click()
        upload(page, tmp_path / "notes.pscx")
        page.get_by_role("button", name="Decode", exact=True).click()
        error = page.locator("#decode-status [role=alert]")
        error.wait_for()
        assert "not a pscx stream" in (error.text_content() or "").lower()
        assert problems(visit) == []


def test_a_file_that_is_too_large_is_refused_at_the_upload(address: str, lab: Path, chromium: Browser) -> None:
    with visited(chromium, address) as visit:
        visit.page.get_by_role("button", name="Compress").wait_for()
        visit.page.locator("input[type=file]").first.set_input_files(lab / "large.png")
        visit.page.get_by_text("exceed the maximum allowed size").wait_for()


def test_only_this_machine_reaches_the_page(address: str) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError, match="refused"):  # another address of this machine, to which "any" would answer
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_an_address_that_is_taken_is_one_sentence(address: str, lab: Path) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    done = subprocess.run(command(lab, port), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot serve the page at 127.0.0.1:{port}" in done.stderr
