"""A headless Chromium for the tests of pages: where it is, how it is started, and what a page did in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from shutil import which
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),  # as root, in a container
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)


@dataclass
class Visit:
    """A page that is open. ``problems`` are the errors and warnings that it had so far, ``requests`` what it loaded."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"{request.url}: {request.failure}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser, closed in the end; the test is skipped where there is none."""
    executable = next(filter(None, map(which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def visited(browser: Browser, url: str, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Visit]:
    """A page of this size at ``url``; ``options`` are those of a browser context, such as ``offline=True``."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        visit = Visit(context.new_page())
        visit.page.goto(url)
        yield visit
    finally:
        context.close()
