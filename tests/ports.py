"""Ports for processes that meet: free as torch needs them, and of one test among all that run at the same time."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

PORTS = range(20_000, 32_768)
"""None that Linux, macOS or Windows gives to a connection by itself."""


@contextmanager
def port_of_its_own(ports: Iterable[int]) -> Iterator[int]:
    """The first of ``ports`` that is free for torch; inside, no other test is given it.

    The sign for other tests, also those of another pytest, is that UDP's port of the same number is taken. It falls
    with the process.
    """
    for port in ports:
        with socket.socket(type=socket.SOCK_DGRAM) as sign:
            if _bound(sign, "127.0.0.1", port) and free(port):
                yield port
                return
    raise AssertionError("no port is free")


def free(port: int) -> bool:
    """Whether a TCP server may listen at a port of all interfaces, as torch does: IPv6 and IPv4, or IPv4 alone."""
    with socket.socket() as probe:
        if not _bound(probe, "", port):
            return False
    if not socket.has_dualstack_ipv6():
        return True
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return _bound(probe, "", port)


def _bound(place: socket.socket, host: str, port: int) -> bool:
    """Bind a socket without ``SO_REUSEADDR``: not to a port that another has been bound to, or was until just now."""
    try:
        place.bind((host, port))
    except OSError:
        return False
    return True
