"""The proxy does to a connection what it says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import Proxy
from dev.kafka.ports import HOST

pytestmark = pytest.mark.anyio

WITHIN_S = 20


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of a server that gives back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # connections are cut here on purpose
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Client:
    """One connection; every wait ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> bytes:
        """What comes back for it."""
        self.writer.write(data)
        return await self.hear(len(data))

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readexactly(count)


@contextlib.asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_bytes_pass_in_both_directions_however_many() -> None:
    async with echo() as port, Proxy(port) as proxy, client(proxy) as one:
        data = bytes(range(256)) * 4000
        assert await one.say(data) == data
        assert proxy.passed_bytes == 2 * len(data)
        assert proxy.connections == 1


async def test_the_end_of_one_side_reaches_the_other() -> None:
    async with echo() as port, Proxy(port) as proxy, client(proxy) as one:
        assert await one.say(b"last") == b"last"
        one.writer.write_eof()
        async with asyncio.timeout(WITHIN_S):
            assert await one.reader.read() == b""


async def test_a_reset_breaks_connections_and_lets_new_ones_in() -> None:
    async with echo() as port, Proxy(port) as proxy, client(proxy) as one:
        assert await one.say(b"a") == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await one.hear(1)
        async with client(proxy) as two:
            assert await two.say(b"b") == b"b"


async def test_a_cut_refuses_connections_until_it_heals() -> None:
    async with echo() as port, Proxy(port) as proxy, client(proxy) as one:
        assert await one.say(b"a") == b"a"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await one.hear(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, proxy.port)
        await proxy.heal()
        async with client(proxy) as two:
            assert await two.say(b"b") == b"b"


async def test_a_stall_holds_bytes_back_and_loses_none() -> None:
    async with echo() as port, Proxy(port) as proxy, client(proxy) as one:
        assert await one.say(b"a") == b"a"
        proxy.stall()
        passed = proxy.passed_bytes
        one.writer.write(b"held")
        async with client(proxy) as two:  # accepted, and nothing comes of it
            two.writer.write(b"too")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.gather(one.reader.readexactly(4), two.reader.readexactly(3))
            assert proxy.passed_bytes == passed
            await proxy.heal()
            assert await two.hear(3) == b"too"


async def test_nobody_behind_it_ends_the_connection() -> None:
    async with echo() as port:
        pass
    async with Proxy(port) as proxy, client(proxy) as one:
        async with asyncio.timeout(WITHIN_S):
            assert await one.reader.read() == b""
