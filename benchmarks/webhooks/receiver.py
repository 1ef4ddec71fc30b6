"""A receiver of webhooks that costs little beside who sends: 204 to what comes to `/hook`, nothing ever to any other
path. It can hold its answers back, so that a sender is watched from its first message to its last.

python -m benchmarks.webhooks.receiver PORT_FILE
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.programs import Program
from dev.kafka.ports import HOST
from forebay.core.times import from_rfc3339

POLL_S = 0.01
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """The process, seen from the benchmark."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"http://{HOST}:{port}/hook"

    def hold(self) -> None:
        """From now on nothing is answered, and what came is forgotten."""
        self._ask("hold")

    def go(self) -> None:
        """Answer what was held, and from now on everything at once."""
        self._ask("go")

    def count(self) -> int:
        return int(self._ask("count"))

    def delays_s(self) -> list[float]:
        """Of each message how long it was on its way, from the time that it tells of."""
        return [float(delay_s) for delay_s in self._ask("delays")]

    def unanswered(self) -> int:
        """How many messages came to a path that never answers."""
        return int(self._ask("unanswered"))

    def until(self, count: int, within_s: float) -> None:
        """That many have come. Raises TimeoutError."""
        until(lambda: self.count() >= count, within_s, f"{count} messages")

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/control/{what}") as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def running_receiver(folder: Path) -> Iterator[Receiver]:
    port_file = folder / "receiver.port"
    command = [sys.executable, "-m", "benchmarks.webhooks.receiver", str(port_file)]
    with Program(command, folder / "receiver.log") as program:
        until(lambda: port_file.exists() and bool(port_file.read_text()), 20.0, "the receiver")
        yield Receiver(int(port_file.read_text()), program.pid)


def until(there: Callable[[], bool], within_s: float, what: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(POLL_S)


class _Desk:
    """What all connections share."""

    def __init__(self) -> None:
        self.came: list[tuple[float, bytes]] = []
        self.held: list[asyncio.Transport] | None = None
        self.unanswered = 0

    def take(self, transport: asyncio.Transport, path: bytes, body: bytes) -> None:
        if path == b"/hook":
            self.came.append((time.time(), body))
            if self.held is None:
                transport.write(ANSWER)
            else:
                self.held.append(transport)
        elif path.startswith(b"/control/"):
            said = json.dumps(self._control(path.removeprefix(b"/control/").decode())).encode()
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        else:
            self.unanswered += 1

    def _control(self, what: str) -> Any:
        if what == "hold":
            self.came, self.held = [], []
        elif what == "go":
            held, self.held = self.held or [], None
            for transport in held:
                transport.write(ANSWER)
        elif what == "delays":
            return [at - from_rfc3339(json.loads(body)["timestamp"]) for at, body in self.came]
        return self.unanswered if what == "unanswered" else len(self.came)


class _Connection(asyncio.Protocol):
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            self._desk.take(self._transport, head.split(b" ", 2)[1], body)


async def _serve(listening: socket.socket) -> None:
    desk = _Desk()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(desk), sock=listening)
    await server.serve_forever()


if __name__ == "__main__":
    with socket.create_server((HOST, 0), backlog=4096) as server_socket:
        Path(sys.argv[1]).write_text(str(server_socket.getsockname()[1]))
        uvloop.run(_serve(server_socket))
