"""Memory that is left to this process, and one sentence if it is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pscx.errors import ImageError

if TYPE_CHECKING:
    import torch

USUAL_MEMORY = 1 << 34  # if the memory of the machine is unknown
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "Cannot allocate memory")
CONTROL_GROUPS = (  # limit, use, and the used part that is released on demand
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")


class OutOfMemoryError(ImageError):
    """An image needs more memory than is left; other images may fit."""


def check_memory(needed: int, what: str, device: torch.device | None = None) -> None:
    """Raise :class:`OutOfMemoryError` if ``what`` takes about ``needed`` bytes and fewer are left."""
    left = memory_left(device)
    if needed > left:
        place = "" if device is None or device.type == "cpu" else f" on {device}"
        left_is = f"{left / 1e9:.1f} GB are left{place}"
        raise OutOfMemoryError(f"{what} takes about {needed / 1e9:.1f} GB of memory, but {left_is}")


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn the errors of Python, numpy and torch for failed allocations into :class:`OutOfMemoryError`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"out of memory while {what}") from error
    except (RuntimeError, OSError) as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
        raise OutOfMemoryError(f"out of memory while {what}") from error


def memory_left(device: torch.device | None = None) -> int:
    """Bytes that this process may still take on a device, or of main memory.

    For main memory it is the smallest amount left by the machine, the control group and the process limits.
    """
    if device is not None and device.type != "cpu":
        from pscx.runtime.devices import free_memory

        if (left := free_memory(device)) is not None:
            return left
    return max(min(left for left in (_of_machine(), _of_group(), _of_process()) if left is not None), 0)


def machine_memory() -> int:
    """Bytes of main memory, or 16 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return USUAL_MEMORY


def _of_machine() -> int:
    """Memory and swap space that no process holds, or all memory where the system does not say."""
    facts = _fields(PROC / "meminfo")
    if "MemAvailable:" not in facts:
        return machine_memory()
    return 1024 * (facts["MemAvailable:"] + facts.get("SwapFree:", 0))


def _of_group() -> int | None:
    """Memory left by the control group of the process and its parents; none without a limit (Linux)."""
    left: list[int] = []
    for group in _groups():
        for limit, used, returned in CONTROL_GROUPS:
            with suppress(OSError, ValueError):  # "max", or not there
                spare = _fields(group / "memory.stat").get(returned, 0)
                left.append(int((group / limit).read_text()) - int((group / used).read_text()) + spare)
    return min(left, default=None)


def _groups() -> list[Path]:
    found = {GROUPS, GROUPS / "memory"}
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = GROUPS / "memory" if "memory" in controllers.split(",") else GROUPS
            inner = root / path.lstrip("/")
            found |= {inner, *(parent for parent in inner.parents if parent.is_relative_to(root))}
    return [group for group in found if group.is_dir()]


def _of_process() -> int | None:
    """Memory left by the limit of addresses (``ulimit -v``); none without a limit."""
    with suppress(ImportError, OSError, ValueError, KeyError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return limit - 1024 * _fields(PROC / "self" / "status")["VmSize:"]
    return None


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, as Linux writes them; empty where there is no such file."""
    fields = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, *rest = line.split()
            if rest and rest[0].isdigit():
                fields[name] = int(rest[0])
    return fields
