"""A TCP proxy that a test stands in front of a broker or a database, to harm the way to it and not the thing itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from dev.kafka.ports import HOST, free_port

CHUNK_BYTES = 1 << 16
NO_LINGER = struct.pack("ii", 1, 0)
"""Closing a socket then sends RST instead of FIN, and throws away what was not sent yet."""


class Proxy:
    """Passes bytes from `port` on to `target_port`, both on the loopback interface, until told otherwise.

    Lives in one event loop. As an asynchronous context manager it is closed in the end.
    """

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.passed_bytes = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def reset(self) -> None:
        """Every connection ends with RST; new ones are served."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # the peer was quicker
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            writer.transport.abort()
        self._writers.clear()

    def cut(self) -> None:
        """As `reset`, and new connections are refused until `heal`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def stall(self) -> None:
        """Nothing passes any more in either direction until `heal`, and nothing says so: connections stay, new ones are
        accepted."""
        self._flowing.clear()

    async def heal(self) -> None:
        """All passes again; what was held back while stalled, too."""
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            there, onward = await asyncio.open_connection(HOST, self._target_port)
        except OSError:  # nobody listens behind: as if nobody listened here
            self._end(writer)
            return
        self._writers.add(onward)
        try:
            await asyncio.gather(self._carry(reader, onward), self._carry(there, writer))
        except OSError:
            pass  # one side broke off; so does the other
        finally:
            self._end(writer)
            self._end(onward)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the reader's side ends, and tell the other side so."""
        while data := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            self.passed_bytes += len(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()
