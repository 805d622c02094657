"""``pscx demo`` among strangers: names that point to it, files at addresses, photographs too large, and its end."""

from __future__ import annotations

import asyncio
import functools
import gc
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CODEC, write_codec

from pscx import load_codec
from pscx.api import KEPT_PRIORS, Decompressor
from pscx.demo import ending
from pscx.demo.guard import CLICK, CLICK_BYTES, FORM_BYTES, UPLOAD, Guard
from pscx.demo.page import check_address
from pscx.demo.work import Bounds, photograph
from pscx.errors import ImageError, PscxError, StreamError
from pscx.format.container import unpack
from pscx.format.limits import Limits
from pscx.priors import PRIORS

pytest.importorskip("gradio", reason="the extra 'demo' is not installed")

LIMIT = 1000


class App:
    """An application that keeps the bodies of what reaches it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def answered(
    method: str = "GET", path: str = "/", body: bytes = b"", host: str | None = "localhost", length: str | None = None
) -> tuple[int, str, list[bytes]]:
    """Status, text and the bodies that reached the application."""
    app, sent = App(), []
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": i < len(pieces) - 1} for i, p in enumerate(pieces)]
    headers = [(b"content-length", (length or str(len(body))).encode())] if length != "" else []
    headers += [] if host is None else [(b"host", host.encode())]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(app, ("Example.test",), LIMIT)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode(), app.bodies


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:7860", "localhost.", "a.localhost:1", "example.test:80", "127.0.0.1:7860"),
        *("192.168.1.20", "[::1]", "[::1]:7860", "[fe80::1]:1"),
    ],
)
def test_own_names_and_addresses_reach_the_page(host: str) -> None:
    assert answered(host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", "evil.test", "evil.test:7860", "localhost.evil.test", "127.0.0.1.evil.test", "localhost@evil.test"),
        *("xlocalhost", "::1", "[::1", "localhost:x", "localhost:1:2", "[evil.test]", "evil.test/localhost", "0x7f.1"),
    ],
)
def test_other_names_do_not(host: str | None) -> None:
    status, text, reached = answered(host=host)
    assert (status, reached) == (403, [])
    assert "not by that name" in text


def test_two_hosts_are_one_too_many() -> None:
    guard = Guard(App(), (), LIMIT)
    hosts = [(b"host", b"localhost"), (b"host", b"evil.test")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": hosts}
    assert guard._refused(scope) == (403, "this page is reached by its address or as localhost, not by that name")


@pytest.mark.parametrize(
    "file",
    [
        *("http://evil.test/a.png", "https://evil.test", "HTTP://evil.test", "//evil.test/a", "\\\\evil.test\\a"),
        *(" http://evil.test", "data:image/png;base64,AA", "ftp://evil.test", "file:///etc/passwd", "file:/etc/passwd"),
    ],
)
def test_a_file_at_an_address_is_refused(file: str) -> None:
    meta = {"path": file, "meta": {"_type": "gradio.FileData"}}
    for data in ([meta, "fast", 50, False], [None, meta, 50, False], [{"deep": [{"value": meta}]}]):
        status, text, reached = answered("POST", CLICK, json.dumps({"data": data, "fn_index": 0}).encode())
        assert (status, reached) == (400, [])
        assert "must be uploaded" in text
    for path in (CLICK + "/", CLICK):
        assert answered("POST", path, json.dumps(meta).encode())[0] == 400


@pytest.mark.parametrize("path", ["/tmp/pscx-demo-1/cat.png", "C:\\Users\\a\\cat.png", "C:/cat.png"])
def test_an_upload_passes_as_it_was_sent(path: str) -> None:
    body = json.dumps({"data": [{"path": path, "url": f"http://localhost/gradio_api/file={path}"}]}).encode()
    assert answered("POST", CLICK, body) == (200, "", [body])


@pytest.mark.parametrize("path", ["/gradio_api/file=http://evil.test/a", "/gradio_api/proxy=https://a.hf.space/x"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_is_fetched_for_a_path(path: str, method: str) -> None:
    assert answered(method, path)[::2] == (403, [])


@pytest.mark.parametrize("path", ["/gradio_api/process_recording", "/gradio_api/run/predict", "/gradio_api/vibe-edit"])
def test_nothing_else_is_posted(path: str) -> None:
    assert answered("POST", path)[::2] == (405, [])
    assert answered("PUT", CLICK)[::2] == (405, [])


def test_what_is_posted_has_its_bounds() -> None:
    assert answered("POST", UPLOAD, length=str(LIMIT + FORM_BYTES))[0] == 200
    assert answered("POST", UPLOAD, length=str(LIMIT + FORM_BYTES + 1))[::2] == (413, [])
    assert answered("POST", CLICK, length=str(CLICK_BYTES + 1))[::2] == (413, [])
    assert answered("POST", CLICK, length="9" * 5000)[::2] == (413, [])
    assert answered("POST", CLICK, length="")[::2] == (411, [])
    assert answered("POST", CLICK, length="-1")[::2] == (411, [])
    assert answered("POST", CLICK, b"[" * 9999)[::2] == (400, [])


def png_of_zeros(path: Path, side: int) -> None:
    """A small file of many pixels: rows of zeros are compressed one by one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_a_photograph_is_measured_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    png_of_zeros(path, 16384)
    assert path.stat().st_size < 40_000

    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    with monkeypatch.context() as patched:
        patched.setattr("pscx.demo.work.read_image", decoded)
        for shrink in (False, True):
            with pytest.raises(ImageError, match=r"16384x16384 = 268435456 pixels; at most \d+ are accepted"):
                photograph(path, Bounds(), shrink=shrink)
    png_of_zeros(path, 64)
    assert photograph(path, Bounds(pixels=1024, scaled=4096), shrink=True).shape == (32, 32, 3)
    with pytest.raises(ImageError, match="at most 4095 are accepted: scale it down beforehand"):
        photograph(path, Bounds(pixels=1024, scaled=4095), shrink=True)


def test_refused_streams_of_new_priors_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder keeps the last few priors that it loaded, and those it was given."""
    own = load_codec(write_codec(tmp_path))
    image = np.zeros((16, 16, 3), np.uint8)
    streams = []
    for i in range(KEPT_PRIORS + 3):
        other = write_codec(tmp_path, CODEC.replace("prior: gaussian", f"prior: {{name: gaussian, color: 0.{i + 1}}}"))
        streams.append(load_codec(other).compress(image))
    made: list[weakref.ref[Any]] = []
    loaded = PRIORS.get("gaussian").__init__

    @functools.wraps(loaded)  # the checker of options looks at its hints
    def init(self: Any, *args: Any, **options: Any) -> None:
        made.append(weakref.ref(self))
        loaded(self, *args, **options)

    monkeypatch.setattr(PRIORS.get("gaussian"), "__init__", init)
    own.limits = replace(Limits(), memory=10_000)  # more than the picture, less than the network
    for data in streams:
        with pytest.raises(StreamError, match="of memory"):
            own.decompress(data)
    gc.collect()
    assert len(made) == len(streams)
    assert sum(prior() is not None for prior in made) == KEPT_PRIORS
    own.limits = Limits()
    own.decompress(own.compress(image))
    own.decompress(streams[-1])
    assert len(made) == len(streams)  # both priors were still there
    own.decompress(streams[0])
    assert len(made) == len(streams) + 1


def test_a_prior_that_is_used_stays(tmp_path: Path) -> None:
    decompressor = Decompressor()
    image = np.zeros((16, 16, 3), np.uint8)
    for i in [1, *range(2, KEPT_PRIORS + 1), 1, KEPT_PRIORS + 1]:
        other = write_codec(tmp_path, CODEC.replace("prior: gaussian", f"prior: {{name: gaussian, color: 0.{i}}}"))
        data = load_codec(other).compress(image)
        decompressor.decompress(data)
        if i == 1:
            first = unpack(data)[0].fingerprint
    assert first in [prior.fingerprint() for prior in decompressor._priors.loaded]
    assert len(decompressor._priors.loaded) == KEPT_PRIORS


@dataclass
class Server:
    """``pscx demo`` in a process of its own, whose temporary files lie in ``temp``."""

    process: subprocess.Popen[str]
    port: int
    temp: Path

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        try:
            return response.status, response.read()
        finally:
            connection.close()

    def upload(self) -> str:
        """Upload a file; gives its path there."""
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nphoto\r\n--x--\r\n'
        status, text = self.ask("POST", UPLOAD, form, Content_Type="multipart/form-data; boundary=x")
        assert status == 200
        path: str = json.loads(text)[0]
        return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    from test_demo_page import command, free_port

    write_codec(tmp_path)
    (tmp_path / "temp").mkdir()
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temp")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command(tmp_path, port), text=True, env=environment, **pipes)
    assert process.stdout is not None
    line = process.stdout.readline()
    if "(Ctrl-C ends it)" not in line:
        process.kill()
        pytest.fail(line + process.communicate()[1])
    yield Server(process, port, tmp_path / "temp")
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("host", ["no.such.invalid", "x" * 70 + ".invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_one_sentence(host: str) -> None:
    with pytest.raises(
        PscxError, match=rf"^cannot serve the page at {host}:1234: .*; choose another --host or --port$"
    ):
        check_address(host, 1234)


def test_an_address_that_is_taken_is_told_by_the_command_s_own_options() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PscxError, match=rf"127\.0\.0\.1:{port}: address already in use; choose another --host"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    check_address("localhost", port)


def test_the_page_is_guarded_and_leaves_nothing_behind(server: Server) -> None:
    assert server.ask("GET", "/")[0] == 200
    assert server.ask("GET", "/config", Host="evil.test")[0] == 403
    upload = Path(server.upload())
    assert upload.read_bytes() == b"photo"
    assert server.temp in upload.parents
    foreign = {"path": "http://evil.test/a.png", "meta": {"_type": "gradio.FileData"}}
    click = json.dumps({"data": [foreign, "fast", 50, False], "fn_index": 0, "session_hash": "a"}).encode()
    assert server.ask("POST", CLICK, click, Content_Type="application/json")[0] == 400
    assert server.ask("GET", "/gradio_api/file=http://evil.test/a.png")[0] == 403
    server.process.send_signal(signal.SIGTERM)
    assert server.process.communicate(timeout=60) == ("", "")
    assert server.process.returncode == 128 + signal.SIGTERM
    assert list(server.temp.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_second_signal_does_not_interrupt_the_end(first: signal.Signals, code: int) -> None:
    script = (
        "import os, signal\n"
        "from pscx.demo.ending import ended_by_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background ignores
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which nohup ignores
        "with ended_by_signals():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(first)})\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('removed')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "removed\n")


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with ending.ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
