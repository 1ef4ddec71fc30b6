"""Ports of the loopback interface for servers that come back on the same port after a kill."""

from __future__ import annotations

import contextlib
import random
import socket

HOST = "127.0.0.1"

# Below the ports that Linux (from 32768) and macOS (from 49152) give to outgoing connections: one of those could take
# the port of a server that is down for a moment.
LOWEST, HIGHEST = 15_000, 32_000

_given: set[int] = set()


def free_port() -> int:
    """Nobody listens on it now, and it was not given before by this process."""
    while True:
        port = random.randint(LOWEST, HIGHEST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):  # then it is not free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: past connections do not count
        probe.bind((HOST, port))
        return True
    return False
