"""One try: what is sent, what comes back, and that nothing a receiver does is worse than a failure with a name."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from email.utils import formatdate
from ipaddress import ip_network

import pytest

from forebay.core.egress import EgressPolicy
from forebay.webhooks.sender import Reply, Sender, SendFailed

NOW = 1_764_400_000.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HEADERS = {"content-type": "application/json", "webhook-id": "msg_1"}

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The service runs on uvloop."""
    return "asyncio", {"use_uvloop": request.param}


class Receiver:
    """A server on 127.0.0.1 that hears a request and then does what the test wants."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.heard: list[bytes] = []
        self.connections = 0
        self.talks: list[asyncio.Task[None]] = []
        self.ended = asyncio.Event()
        """Set when a connection is over."""

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://receiver.test:{self.port}/hook"
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talking = asyncio.current_task()
        assert talking is not None
        self.talks.append(talking)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.heard.append(head + await reader.readexactly(length))
                await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the sender has gone, or the test wants the connection closed
        finally:
            self.ended.set()
            writer.close()
            with contextlib.suppress(OSError):  # the sender may have reset it
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def receiver(talk: Talk) -> AsyncIterator[Receiver]:
    it = Receiver(talk)
    server = await it.serve()
    try:
        yield it
    finally:
        server.close()
        for talk_on in it.talks:
            talk_on.cancel()
        await asyncio.gather(*it.talks, return_exceptions=True)  # they were cancelled


def says(answer: bytes, *, then_close: bool = False) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if then_close:
            raise ConnectionResetError

    return talk


async def lookup(host: str) -> Sequence[str]:
    return ["127.0.0.1"]


def sender_to(port: int, *, timeout_s: float = 10.0, policy: EgressPolicy | None = None) -> Sender:
    opened = EgressPolicy(
        allow_networks=(ip_network("127.0.0.0/8"),),
        http_hosts=frozenset({"receiver.test"}),
        ports=frozenset({port}),
    )
    return Sender(policy or opened, timeout_s=timeout_s, lookup=lookup, now=lambda: NOW)


async def send_to(talk: Talk, *, timeout_s: float = 10.0) -> Reply:
    async with receiver(talk) as it, sender_to(it.port, timeout_s=timeout_s) as sender:
        return await sender.send(it.url, HEADERS, b"{}")


async def test_the_request_is_what_was_given_and_little_else() -> None:
    async with receiver(says(OK)) as it, sender_to(it.port) as sender:
        reply = await sender.send(it.url + "/%2F/..?a=%41&b=+", HEADERS, b'{"a":1}')
        assert (reply.status, reply.retry_after_s) == (200, None)
        assert reply.latency_s > 0
        head, _, body = it.heard[0].partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        assert line == "POST /hook/%2F/..?a=%41&b=+ HTTP/1.1"
        assert body == b'{"a":1}'
        assert {one.lower() for one in lines} == {
            f"host: receiver.test:{it.port}",
            "user-agent: forebay-webhooks",
            "accept: */*",
            "content-type: application/json",
            "content-length: 7",
            "webhook-id: msg_1",
        }


async def test_no_proxy_of_the_environment_and_no_password_file_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine receiver.test login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with receiver(says(OK)) as it, sender_to(it.port) as sender:
        assert (await sender.send(it.url, HEADERS, b"{}")).status == 200
        assert b"uthorization" not in it.heard[0]


async def test_a_cookie_is_not_sent_back() -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with receiver(says(answer)) as it, sender_to(it.port) as sender:
        for _ in range(2):
            await sender.send(it.url, HEADERS, b"{}")
        assert it.heard[0] == it.heard[1]


@pytest.mark.parametrize("status", [201, 204, 301, 302, 303, 307, 308, 400, 404, 410, 429, 500, 503, 599])
async def test_every_status_is_a_reply_and_no_redirect_is_followed(status: int) -> None:
    head = f"HTTP/1.1 {status} x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with receiver(says(head.encode())) as it, sender_to(it.port) as sender:
        assert (await sender.send(it.url, HEADERS, b"{}")).status == status
        assert len(it.heard) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 5000, None),
        ("Fri, 99 Foo 99999 99:99:99 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("1, 2", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    reply = await send_to(says(f"HTTP/1.1 503 x\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert reply == Reply(503, seconds, reply.latency_s)


async def test_a_connection_is_kept_for_the_next_delivery() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    async with receiver(says(answer)) as it, sender_to(it.port) as sender:
        for _ in range(3):
            await sender.send(it.url, HEADERS, b"{}")
        assert (it.connections, len(it.heard)) == (1, 3)


async def test_an_endless_body_is_not_read_and_the_status_counts() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with receiver(talk) as it, sender_to(it.port) as sender:
        assert (await sender.send(it.url, HEADERS, b"{}")).status == 200
        await it.ended.wait()
        await sender.send(it.url, HEADERS, b"{}")
        assert it.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000,
    ],
)
async def test_however_the_body_ends_the_status_counts(answer: bytes) -> None:
    assert (await send_to(says(answer, then_close=True))).status == 200


async def test_a_body_that_never_ends_costs_no_more_than_the_try() -> None:
    talk = says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
    assert (await send_to(talk, timeout_s=2.0)).status == 200


async def code_of(sending: Awaitable[Reply]) -> str:
    with pytest.raises(SendFailed) as caught:
        await sending
    assert "127.0.0.1" not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_who_does_not_answer_times_out(part: bytes) -> None:
    assert await code_of(send_to(says(part), timeout_s=0.2)) == "timeout"


async def test_who_drips_a_head_times_out() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not reader.at_eof():
            writer.write(b"X-Y: z\r\n")
            await writer.drain()
            with contextlib.suppress(TimeoutError):  # nothing comes: on with the drip
                await asyncio.wait_for(reader.read(1), 0.05)
        raise ConnectionResetError

    assert await code_of(send_to(talk, timeout_s=0.3)) == "timeout"


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nX: "])
async def test_who_hangs_up_has_reset(part: bytes) -> None:
    assert await code_of(send_to(says(part, then_close=True))) == "reset"


async def test_who_resets_has_reset() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionResetError

    assert await code_of(send_to(talk)) == "reset"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
async def test_what_is_no_http_is_malformed(answer: bytes) -> None:
    assert await code_of(send_to(says(answer, then_close=True))) == "malformed"


async def test_garbage_is_a_reply_or_a_failure_with_a_name() -> None:
    luck = random.Random(1)
    good = b"HTTP/1.1 200 OK\r\nRetry-After: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = bytearray(good)
        for _ in range(luck.randint(1, 6)):
            at = luck.randrange(len(answer))
            answer[at : at + luck.randint(0, 3)] = luck.randbytes(luck.randint(0, 3))
        await says(bytes(answer), then_close=True)(reader, writer)

    async with receiver(talk) as it, sender_to(it.port, timeout_s=1.0) as sender:
        codes = set()
        for _ in range(300):
            try:
                await sender.send(it.url, HEADERS, b"{}")
            except SendFailed as failed:  # which is what is collected
                codes.add(failed.code)
        assert codes <= {"malformed", "reset", "timeout"}


async def test_who_listens_at_no_port_is_not_reached() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        async with sender_to(port) as sender:
            assert await code_of(sender.send(f"http://receiver.test:{port}/", HEADERS, b"{}")) == "connect"


async def test_who_speaks_no_tls_fails_at_it() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        async with sender_to(port) as sender:
            assert await code_of(sender.send(f"https://receiver.test:{port}/", HEADERS, b"{}")) == "tls"


@pytest.mark.parametrize("answers", [[], None])
async def test_a_name_without_an_address_is_told(answers: list[str] | None) -> None:
    async def nothing(host: str) -> Sequence[str]:
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers

    async with Sender(EgressPolicy(), lookup=nothing) as sender:
        assert await code_of(sender.send("https://nobody.test/", HEADERS, b"{}")) == "dns"


async def test_a_name_server_that_says_nothing_costs_one_try() -> None:
    async def silence(host: str) -> Sequence[str]:
        answer: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        return await answer

    async with Sender(EgressPolicy(), lookup=silence, timeout_s=0.1) as sender:
        assert await code_of(sender.send("https://silent.test/", HEADERS, b"{}")) == "timeout"


@pytest.mark.parametrize("url", ["ftp://x.test/", "https://127.0.0.1/", "https://x.test:22/", "https://x.test/"])
async def test_where_nothing_may_go_nothing_is_sent(url: str) -> None:
    """The last one is a name that leads to 127.0.0.1."""
    async with Sender(EgressPolicy(), lookup=lookup) as sender:
        assert await code_of(sender.send(url, HEADERS, b"{}")) == "egress_refused"


@pytest.mark.parametrize("passed", [0, 1, 2])
async def test_each_of_three_judgements_would_be_enough(passed: int) -> None:
    """The answer of the resolver, the socket before it exists, the peer before a byte is written."""
    connects = passed == 2

    class LetsPass(EgressPolicy, frozen=True):
        def judge(self, address: str, *, host: str = "") -> str | None:
            nonlocal passed
            passed -= 1
            return None if passed >= 0 else "refused"

    async with receiver(says(OK)) as it:
        policy = LetsPass(http_hosts=frozenset({"receiver.test"}), ports=frozenset({it.port}))
        async with sender_to(it.port, policy=policy) as sender:
            assert await code_of(sender.send(it.url, HEADERS, b"{}")) == "egress_refused"
        if connects:
            await it.ended.wait()
        assert (it.connections, it.heard) == (int(connects), [])
