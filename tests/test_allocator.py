"""Freed memory is used again: counted page faults of processes of their own, since it is a setting of a process."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pscx.runtime.allocator import CHOSEN

FAULTS = """
import numpy, resource
from pscx.runtime.allocator import keep_freed_memory
from pscx.cli.main import main
kept = {how}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    [numpy.ones(1 << 18) for _ in range(20)]  # together 40 MB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PROGRAM = """
import sys, pscx.cli.main
sys.argv = ["pscx", "--version"]
try:
    pscx.cli.main.run()
except SystemExit as stop:
    print(stop.code, end=" ")
"""

PAGES = 20 * (1 << 21) // resource.getpagesize()  # of the arrays that there are at a time
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # such pages are faulted in by the hundred

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE.exists() and "[always]" in HUGE.read_text()),
    reason="another C library, or pages of another size",
)


def faults(how: str, before: str = "", **variables: str) -> tuple[list[str], int]:
    """What the call ``how`` gave, word for word, and page faults of twenty times twenty arrays after it."""
    clean = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    program = [sys.executable, "-c", before + FAULTS.format(how=how)]
    done = subprocess.run(program, check=True, capture_output=True, text=True, env={**clean, **variables}, timeout=300)
    *words, count = done.stdout.split()
    return words, int(count)


@glibc
def test_arrays_use_the_pages_of_those_before() -> None:
    words, kept = faults("keep_freed_memory()")
    assert words == ["True"]
    assert kept < 2 * PAGES
    words, given_back = faults("None")
    assert words == ["None"]
    assert given_back > 15 * PAGES


@glibc
def test_the_program_does_so_and_its_parts_do_not() -> None:
    words, kept = faults("None", PROGRAM)
    assert words[2:] == ["0", "None"]
    assert kept < 2 * PAGES
    assert faults('main(["--version"])')[1] > 15 * PAGES


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_has_chosen_is_left_alone(name: str) -> None:
    value = {"MALLOC_TRIM_THRESHOLD_": "131072", "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}[name]
    assert faults("keep_freed_memory()", **{name: value})[0] == ["False"]
