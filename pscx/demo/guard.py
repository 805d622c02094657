"""Filter of requests: only the page's own visitors and only what the page does."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pscx.runtime.safe_yaml import UnreadableError, parse_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api/"
CLICK, UPLOAD = f"{API}queue/join", f"{API}upload"
POSTS = (CLICK, UPLOAD, f"{API}cancel", f"{API}reset")
CLICK_BYTES = 1 << 16  # for the values of the page's components
FORM_BYTES = 1 << 20  # overhead of a form around its file
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+?)\.?(:\d+)?", re.IGNORECASE)


class Guard:
    """ASGI middleware that refuses requests that no visitor of the page needs, before Gradio sees them.

    - A ``Host`` that is neither an address in numbers, nor ``localhost``, nor one of ``names``: another site's name
      that was made to point here (DNS rebinding), with that site's scripts behind it.
    - A file to be fetched from an address, in a click or in the path: the server looks nothing up.
    - Anything posted but clicks and uploads, and what is larger than those are.

    Args:
        app: the application to guard.
        names: other names of this machine.
        upload: bytes of the largest upload.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...], upload: int) -> None:
        self.app, self.upload = app, upload
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            raise ValueError("the page has no web sockets")
        refusal = self._refused(scope)
        if refusal is None and scope["method"] == "POST" and scope["path"].rstrip("/") == CLICK:
            body = await _whole(receive)
            refusal, receive = _refused_click(body), _again(body, receive)
        if refusal is None:
            return await self.app(scope, receive, send)
        from starlette.responses import JSONResponse

        status, reason = refusal
        return await JSONResponse({"detail": reason}, status)(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where the head of a request says enough."""
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if len(hosts) != 1 or not self.is_own(hosts[0]):
            return 403, "this page is reached by its address or as localhost, not by that name"
        path = scope["path"].rstrip("/")
        if "://" in path or path.startswith(f"{API}proxy="):
            return 403, "this page fetches nothing from other addresses"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if scope["method"] != "POST" or path not in POSTS:
            return 405, "this page takes clicks and uploads only"
        limit = self.upload + FORM_BYTES if path == UPLOAD else CLICK_BYTES
        lengths = [value for key, value in scope["headers"] if key == b"content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit():
            return 411, "a request must say how long it is"
        return (413, f"at most {limit} bytes are accepted") if int(lengths[0][:20]) > limit else None

    def is_own(self, host: str) -> bool:
        """Whether a ``Host`` header names this page, at any port: tunnels have their own."""
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower()
        return name in self.names or name.endswith(".localhost") or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refused_click(body: bytes) -> tuple[int, str] | None:
    """Status and reason where a click names a file that is not an upload."""
    try:
        content = parse_json(body, "the request")
    except UnreadableError as error:
        return 400, str(error)
    if any(_is_foreign(path) for path in _paths(content)):
        return 400, "a file must be uploaded: nothing is fetched from an address"
    return None


def _paths(value: Any) -> list[Any]:
    """What is under ``path`` at every level: how Gradio names a file."""
    if isinstance(value, list):
        return [path for item in value for path in _paths(item)]
    if not isinstance(value, dict):
        return []
    own = [value["path"]] if "path" in value else []
    return own + [path for item in value.values() for path in _paths(item)]


def _is_foreign(path: Any) -> bool:
    return isinstance(path, str) and (path.startswith(("//", "\\\\")) or "://" in path or bool(_scheme(path)))


def _scheme(path: str) -> str:
    """The scheme of an address such as ``data:...``; not the letter of a drive."""
    try:
        scheme = urlsplit(path.strip()).scheme
    except ValueError:
        return path
    return scheme if len(scheme) > 1 else ""


async def _whole(receive: Receive) -> bytes:
    """The body of a request, whose length was checked."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
