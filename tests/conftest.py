"""Fixtures that several test files share: small photographs, and a folder of them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import launched
from numpy.typing import NDArray
from PIL import Image
from ports import PORTS, port_of_its_own
from pretend_device import device

from pscx.catalogue import components as catalogue
from pscx.config.plugins import FAILURES, PACKAGE, VARIABLE
from pscx.data.folder import BUNDLED

if TYPE_CHECKING:
    import torch
    from playwright.sync_api import Browser


def load(name: str) -> NDArray[np.uint8]:
    with Image.open(BUNDLED / f"{name}.png") as image:
        return np.array(image)


@pytest.fixture
def astronaut() -> NDArray[np.uint8]:
    """A bundled photograph, ``(128, 128, 3)``, uint8."""
    return load("astronaut")


@pytest.fixture
def cat() -> NDArray[np.uint8]:
    """A bundled photograph that is wider than high, ``(112, 160, 3)``, uint8."""
    return load("chelsea")


@pytest.fixture
def rocket() -> NDArray[np.uint8]:
    """A bundled photograph that is higher than wide, ``(128, 96, 3)``, uint8."""
    return load("rocket")


@pytest.fixture
def image_folder(tmp_path: Path, astronaut: NDArray[np.uint8], cat: NDArray[np.uint8]) -> Path:
    """A folder with ``a.png`` (32x32), ``b.webp`` (48x32, lossless) and ``sub/a.png`` (40x24)."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(astronaut[:32, :32]).save(root / "a.png")
    Image.fromarray(cat[:32, :48]).save(root / "b.webp", lossless=True)
    Image.fromarray(cat[40:64, 60:100]).save(root / "sub" / "a.png")
    return root


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Lightning leaves its place among processes in the environment, where a later run would believe it."""
    yield
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_table_of_priors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Places of priors are remembered for this test alone."""
    monkeypatch.setenv("PSCX_PRIORS", str(tmp_path / "known-priors.yaml"))


@pytest.fixture
def meeting_point(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A port at which the processes of a run meet, of this test alone and none that the system gives to others."""
    with port_of_its_own(random.sample(PORTS, len(PORTS))) as port:
        monkeypatch.setenv("MASTER_PORT", str(port))
        yield


@pytest.fixture(scope="module")  # no longer: while it runs, the thread has a running event loop
def chromium() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where there is none. See :mod:`browser`."""
    with launched() as browser:
        yield browser


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Takes back what plugins a test has loaded; done after the test in any case. None are named from outside."""
    monkeypatch.delenv(VARIABLE, raising=False)
    before = {registry: dict(registry.classes) for registry in catalogue.SECTIONS.values()}

    def forget() -> None:
        for registry, classes in before.items():
            registry.classes = dict(classes)
        FAILURES.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in (PACKAGE, "outside")]:
            del sys.modules[name]

    yield forget
    forget()


@pytest.fixture
def standin() -> Iterator[torch.device]:
    """The device of :mod:`pretend_device`; the test is skipped where torch cannot have it."""
    with device() as place:
        yield place
