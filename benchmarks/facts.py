"""Where, when and with what something was measured: the facts of an ``about.json``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "pillow", "torchmetrics", "constriction", "diffusers", "lightning", "imagecodecs")
RESULTS = "benchmarks/results"


def facts() -> dict[str, Any]:
    """Date, commit, machine and versions. ``clean``: whether all files but results are those of the commit."""
    status = _git("status", "--porcelain", "--", ".", f":!{RESULTS}")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "clean": None if status is None else not status,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere what Python knows."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def as_json(found: Mapping[str, Any]) -> bytes:
    """What is written into ``about.json``."""
    return f"{json.dumps(found, indent=1)}\n".encode()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*args: str) -> str | None:
    command: Sequence[str] = ("git", "-C", str(ROOT), *args)
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
