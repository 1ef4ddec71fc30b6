"""A connection to the server that breaks: the tests' own network trouble."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

CHUNK_BYTES = 65_536


class Cutter:
    """Forwards connections to a server, and cuts the first `cuts` of them after so many bytes of one direction.

    Before a cut `on_cut` is called.
    """

    def __init__(
        self,
        port: int,
        *,
        cuts: int,
        up_bytes: int | None = None,
        down_bytes: int | None = None,
        on_cut: Callable[[], None] = lambda: None,
    ) -> None:
        self.cut = 0
        self._on_cut = on_cut
        self._port = port
        self._cuts = cuts
        self._up_bytes = up_bytes
        self._down_bytes = down_bytes

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            yield f"http://{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionError:
            writer.transport.abort()
            return

        def cut() -> bool:
            if self.cut == self._cuts:
                return False
            self.cut += 1
            self._on_cut()
            for each in (writer, far_writer):
                each.transport.abort()
            return True

        await asyncio.gather(
            _pump(reader, far_writer, self._up_bytes, cut), _pump(far_reader, writer, self._down_bytes, cut)
        )


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_bytes: int | None, cut: Callable[[], bool]
) -> None:
    moved_bytes = 0
    with contextlib.suppress(ConnectionError):  # connections are cut here on purpose
        while data := await reader.read(CHUNK_BYTES):
            moved_bytes += len(data)
            if limit_bytes is not None and moved_bytes > limit_bytes and cut():
                return
            writer.write(data)
            await writer.drain()
        writer.close()
