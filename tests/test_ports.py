"""The ports at which the tests' processes meet."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import PORTS, free, port_of_its_own


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("listens", [True, False])
def test_a_port_of_any_interface_is_taken(host: str, listens: bool) -> None:
    """One more interface than that through which processes meet is enough, as torch listens on all of them."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with port_of_its_own(PORTS) as port:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
            try:
                other.bind((host, port))
            except OSError:
                pytest.skip(f"no interface {host}")
            if listens:
                other.listen()
            assert not free(port)
        assert free(port)


def test_two_tests_have_two_ports() -> None:
    """Before torch listens, and in another process too."""
    with port_of_its_own(PORTS) as first, port_of_its_own(range(first, first + 100)) as second:
        assert first < second
        code = f"from ports import *\nwith port_of_its_own(range({first}, {first} + 100)) as port: print(port)"
        command, here = [sys.executable, "-c", code], Path(__file__).parent
        printed = subprocess.run(command, cwd=here, capture_output=True, check=True).stdout
        assert int(printed) not in (first, second)
    with port_of_its_own(range(first, first + 100)) as again:
        assert again == first
