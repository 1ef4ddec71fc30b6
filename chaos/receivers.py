"""Receivers of webhooks, each with a fault of its own at random moments, and what they saw.

Plain sockets: most of these faults are what no library of ours would do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping

from standardwebhooks import Webhook, WebhookVerificationError

from dev.kafka.ports import HOST, free_port

FAULTY = 0.5
"""Of the requests to a receiver whose fault is not for ever."""

FAILURES_MOST = 5
"""Of one message there, so that it is taken before its tries are over."""

RETRY_AFTER_S = 1
DRIP_S = 0.2
LARGE_BYTES = 10**9
PIECE = bytes(2**20)

FOR_EVER = {"gone": "gone", "broken": "status"}
"""Receivers that never take anything, and why what is for them is parked in the end."""

AT_TIMES = ("good", "error", "busy", "slow", "reset", "drip", "large", "tls")
KINDS = (*AT_TIMES, *FOR_EVER)

Look = Callable[[str], Awaitable[str]]


class Heard:
    """What all receivers saw. `look` asks the service for the state of a job."""

    def __init__(self, look: Look) -> None:
        self.secrets: list[str] = []
        """Those that have ever been the tenant's."""
        self.taken: dict[str, int] = {}  # by webhook id, how often it was answered well
        self.faults: dict[str, int] = {}  # by kind, how often a receiver failed
        self.forged = 0
        self.unlike = 0
        self.early = 0
        self._look = look
        self._digests: dict[str, bytes] = {}

    async def note(self, headers: Mapping[str, str], body: bytes) -> None:
        """One request."""
        if not any(_verifies(secret, headers, body) for secret in self.secrets):
            self.forged += 1
            return
        digest = hashlib.sha256(body).digest()
        self.unlike += self._digests.setdefault(headers["webhook-id"], digest) != digest
        told = json.loads(body)
        status = told["data"]["status"]
        self.early += await self._look(told["data"]["id"]) != status

    def took(self, headers: Mapping[str, str]) -> None:
        self.taken[headers["webhook-id"]] = self.taken.get(headers["webhook-id"], 0) + 1

    def failed(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1


class Receivers:
    """One for each kind of fault, at a port of its own. `slow_s`: how long one does nothing that is too slow. `tls`
    holds a context that its clients trust and one that they do not."""

    def __init__(
        self, heard: Heard, rng: random.Random, *, slow_s: float, tls: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        self._heard = heard
        self._random = rng
        self._slow_s = slow_s
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._failures: dict[str, int] = {}
        self._strange = 0  # certificates shown one after the other
        self._serving: set[asyncio.Task[None]] = set()
        self.ports = {kind: free_port() for kind in KINDS}

    def url(self, kind: str) -> str:
        return f"{'https' if kind == 'tls' else 'http'}://{HOST}:{self.ports[kind]}/{kind}"

    async def open(self) -> None:
        for kind, port in self.ports.items():
            context = self._changing() if kind == "tls" else None
            self._servers.append(await asyncio.start_server(self._serve(kind), HOST, port, ssl=context))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)  # they were cancelled

    def _changing(self) -> ssl.SSLContext:
        """Shows the one certificate or the other."""
        good, bad = self._tls

        def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            self._strange = self._strange + 1 if self._strange < FAILURES_MOST and self._random.random() < FAULTY else 0
            if self._strange:
                self._heard.failed("tls")
                connection.context = bad

        good.sni_callback = choose
        return good

    def _serve(self, kind: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "a stream is served in a task"
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            try:
                while (request := await _read(reader)) is not None:
                    await self._answer(kind, *request, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the sender left, or all is over
                pass
            finally:
                writer.transport.abort()

        return serve

    async def _answer(self, kind: str, headers: Mapping[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        noting = asyncio.create_task(self._heard.note(headers, body))  # beside the answer, which is waited for
        try:
            await self._reply(kind, headers, writer)
        finally:
            await noting

    async def _reply(self, kind: str, headers: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        fault = kind if kind in FOR_EVER or self._fails(kind, headers["webhook-id"]) else "good"
        if fault != "good":
            self._heard.failed(kind)
        match fault:
            case "gone":
                writer.write(_head(410))
            case "error" | "broken":
                writer.write(_head(500))
            case "busy":
                writer.write(_head(429, f"retry-after: {RETRY_AFTER_S}"))
            case "slow":
                await asyncio.sleep(self._slow_s)
                raise ConnectionResetError("it was too slow")
            case "reset":
                raise ConnectionResetError("it hangs up")
            case "drip":
                for octet in _head(204):  # longer than anybody waits
                    writer.write(bytes([octet]))
                    await asyncio.sleep(DRIP_S)
                raise ConnectionResetError("it was too slow")
            case "large":
                self._heard.took(headers)  # its status counts
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE_BYTES)
                for _ in range(LARGE_BYTES // len(PIECE)):
                    if writer.is_closing():  # nobody reads all of it
                        return
                    writer.write(PIECE)
                    await writer.drain()
            case _:
                self._heard.took(headers)
                writer.write(_head(204))
        await writer.drain()

    def _fails(self, kind: str, webhook_id: str) -> bool:
        failures = self._failures.get(webhook_id, 0)
        fails = kind not in ("good", "tls") and failures < FAILURES_MOST and self._random.random() < FAULTY
        if fails:
            self._failures[webhook_id] = failures + 1
        return fails


async def _read(reader: asyncio.StreamReader) -> tuple[Mapping[str, str], bytes] | None:
    """Headers, their names in lower case, and the body of a request; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:  # the sender is done with this connection
        return None
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return headers, await reader.readexactly(int(headers["content-length"]))


def _head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} -", "content-length: 0", *lines, "", ""]).encode()


def _verifies(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """By the standard's own library."""
    try:
        Webhook(secret).verify(body.decode(), dict(headers))
    except WebhookVerificationError:  # which is what is asked
        return False
    return True
