"""A world in which every address is this machine, and somebody listens everywhere: what is sent is counted.

Run as root of a network namespace of its own, which tests/scenario/test_no_webhook_reaches_a_forbidden_address.py
makes: all of IPv4 and IPv6 is local there, the real metadata addresses too. Nothing of ours is replaced: names go
through the system's resolver to a DNS server of this file, and what left is counted below everything, as packets that
open a connection.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import uvloop

from forebay.core.egress import EgressPolicy
from forebay.webhooks.egress import EgressRefused, GuardedConnector
from forebay.webhooks.lookup import SystemLookup
from forebay.webhooks.sender import Sender, SendFailed

HERE = Path(__file__).parent
PUBLIC, PUBLIC_SIX, OPENED, OPENED_SIX = "93.184.216.34", "2606:2800:220:1::1", "10.77.0.9", "fd77::9"
NAMES: dict[str, list[str]] = {
    **json.loads((HERE / "hostile_names.json").read_text()),
    "public.test": [PUBLIC],
    "both.test": [PUBLIC, PUBLIC_SIX],
    "public-nat64.test": ["64:ff9b::5db8:d822"],
    "opened.test": [OPENED],
    "opened6.test": [OPENED_SIX],
    "plain.test": [PUBLIC],
    "plain-opened.test": [OPENED],
}
FORBIDDEN = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "100.100.100.200", "172.16.0.1")
FORBIDDEN_SIX = ("::1", "fd00:ec2::254", "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::1", "fec0::1")
REBINDING = ("flip.test", "shuffled.test", "six.test")
CONCURRENT = 8
ETH_P_ALL, SO_ATTACH_FILTER, SOL_PACKET, PACKET_STATISTICS = 3, 26, 263, 6
PLAINLY = aiohttp.ClientTimeout(total=1)


def make_everything_local(scratch: Path) -> None:
    for command in (
        "ip link set lo up",
        "ip route add local 0.0.0.0/0 dev lo",
        "ip -6 route add local ::/0 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    resolver = scratch / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.53\noptions timeout:2 attempts:2 ndots:1\n")
    subprocess.run(["mount", "--bind", str(resolver), os.path.realpath("/etc/resolv.conf")], check=True)


OPENING = (
    (0x28, 0, 0, 12),  # ldh [12], the kind of packet
    (0x15, 0, 6, 0x0800),  # IPv4?
    (0x30, 0, 0, 23),  # ldb [23], its protocol
    (0x15, 0, 11, 6),  # TCP?
    (0xB1, 0, 0, 14),  # ldxb 4 * ([14] & 15), the length of its header
    (0x50, 0, 0, 27),  # ldb [x + 27], the flags
    (0x54, 0, 0, 0x12),
    (0x15, 6, 7, 0x02),  # SYN without ACK?
    (0x15, 0, 6, 0x86DD),  # IPv6?
    (0x30, 0, 0, 20),
    (0x15, 0, 4, 6),
    (0x30, 0, 0, 67),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0x40000),  # take it
    (0x06, 0, 0, 0),  # leave it
)
"""For the kernel (classic BPF), so that no packet is lost among those that are not counted."""


class Packets:
    """Counts the packets that open a TCP connection, by destination, on the only device there is."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in OPENING))
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(OPENING), ctypes.addressof(program))
        )
        self._socket.bind(("lo", ETH_P_ALL))
        self.opened: Counter[str] = Counter()
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            frame, (_, _, kind, _, _) = self._socket.recvfrom(2048)
            if kind == socket.PACKET_OUTGOING:  # on this device each is seen twice
                continue
            packet = frame[14:]
            if packet[0] >> 4 == 4:
                self.opened[socket.inet_ntop(socket.AF_INET, packet[16:20])] += 1
            else:
                self.opened[socket.inet_ntop(socket.AF_INET6, packet[24:40])] += 1

    async def take(self) -> dict[str, int]:
        """Since the last time. A connection of our own, to an address that nothing else is sent to, is the mark behind
        which nothing is missing."""
        mark = "198.51.100.99"
        while not self.opened[mark]:
            _, writer = await asyncio.open_connection(mark, 80)
            writer.close()
            await asyncio.sleep(0)
        _, dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        if dropped:
            raise RuntimeError(f"{dropped} packets were not counted")
        taken, self.opened = self.opened, Counter()
        del taken[mark]
        return dict(taken)


class Names(asyncio.DatagramProtocol):
    """A DNS server whose answers hold for no time (TTL 0), and one that changes them from one question to the next."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._asked: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        """Answers to questions for IPv4 that held nothing forbidden, of names that rebind."""
        self.questions: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport  # which asyncio's own datagram transport is, though not by its class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
            at += data[at] + 1
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        name = ".".join(labels).lower()
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        addresses = self._addresses(name, family) if family else []
        known = name in NAMES or name in REBINDING
        answer = data[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, len(addresses), 0, 0)
        answer += data[12 : at + 5]
        for address in addresses:
            raw = socket.inet_pton(family or socket.AF_INET, address)
            answer += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(raw)) + raw
        self._transport.sendto(answer, addr)

    def _addresses(self, name: str, family: socket.AddressFamily) -> list[str]:
        six = family == socket.AF_INET6
        if name not in REBINDING:
            return [one for one in NAMES.get(name, []) if (":" in one) == six]
        self.questions[name] += not six
        bad = self._random.choice(FORBIDDEN_SIX if six else FORBIDDEN)
        if name == "flip.test":  # good, forbidden, good, ...: what a check sees is not what a connection would
            if six:
                return []
            self._asked[name] += 1
            self.good[name] += self._asked[name] % 2
            return [PUBLIC if self._asked[name] % 2 else bad]
        if name == "six.test":  # good on IPv4, forbidden on IPv6
            return [bad if six else PUBLIC]
        if six:
            return []
        mixed = [PUBLIC, bad, "93.184.216.35"]
        self._random.shuffle(mixed)
        return mixed


class World:
    def __init__(self, scratch: Path, seed: int) -> None:
        self.tls = ssl.create_default_context(cafile=str(scratch / "ca.crt"))
        self._certificate = scratch / "world.crt", scratch / "world.key"
        self.packets = Packets()
        self.names = Names(seed)
        self.served: Counter[tuple[str, str | None, str]] = Counter()
        """Requests by address, name in the TLS handshake and Host."""

    async def __aenter__(self) -> World:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self.names, local_addr=("127.0.0.53", 53))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self._certificate)
        tls.sni_callback = lambda connection, name, _: setattr(connection, "asked_for", name)
        self._servers = [
            await asyncio.start_server(self._serve, host, port, ssl=context)
            for host in ("0.0.0.0", "::")
            for port, context in ((80, None), (443, tls))
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            host = next(line[6:] for line in lines if line.lower().startswith("host: "))
            query = parse_qs(urlsplit(lines[0].split(" ")[1]).query)
            status = query.get("status", ["200"])[0]
            location = "".join(f"Location: {one}\r\nRefresh: 0; url={one}\r\n" for one in query.get("location", []))
            name = getattr(writer.get_extra_info("ssl_object"), "asked_for", None)
            self.served[writer.get_extra_info("sockname")[0], name, host] += 1
            writer.write(f"HTTP/1.1 {status} x\r\n{location}Connection: close\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # who speaks TLS to the other port, or nothing at all
        finally:
            writer.close()


async def together(count: int, act: Callable[[int], Awaitable[str]]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    numbers = iter(range(count))

    async def go_on() -> None:
        for number in numbers:
            outcomes[await act(number)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENT):
            tasks.create_task(go_on())
    return outcomes


async def outcome(sender: Sender, url: str) -> str:
    try:
        reply = await sender.send(url, {"content-type": "application/json"}, b"{}")
    except SendFailed as failed:  # which is what is counted
        return failed.code
    return str(reply.status)


async def each(act: Callable[[str], Awaitable[str]], urls: Iterable[str]) -> list[tuple[str, str]]:
    return [(url, await act(url)) for url in urls]


async def with_the_guard_at_the_socket_only(world: World, urls: Iterable[str]) -> list[tuple[str, str]]:
    """No reading of ours before it: aiohttp reads the URL and follows redirects, as if all else had failed."""
    connector = GuardedConnector(EgressPolicy(), SystemLookup(), world.tls)
    async with aiohttp.ClientSession(connector=connector, timeout=PLAINLY) as session:
        return await each(lambda url: plainly(session, url), urls)


async def with_no_guard(urls: Iterable[str]) -> list[tuple[str, str]]:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=tls, use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector, timeout=PLAINLY) as session:
        return await each(lambda url: plainly(session, url), urls)


async def plainly(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.post(url, data=b"{}") as response:
            return str(response.status)
    except EgressRefused:  # which is what is counted
        return "egress_refused"
    except Exception:  # aiohttp raises all sorts for some of these; what left is counted whatever it was
        return "failed"


async def check_then_connect(number: int) -> str:
    """The guard that rebinding was made for: it asks, judges, and lets the client ask again."""
    policy = EgressPolicy()
    found = await asyncio.to_thread(socket.getaddrinfo, "flip.test", None, type=socket.SOCK_STREAM)
    if any(policy.judge(str(entry[4][0])) for entry in found):
        return "egress_refused"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(use_dns_cache=False)) as session:
        return await plainly(session, "http://flip.test/")


async def controls(world: World) -> dict[str, str]:
    private = EgressPolicy(
        allow_networks=(ip_network("10.77.0.0/24"), ip_network("fd77::/64")),
        http_hosts=frozenset({"plain.test", "plain-opened.test", OPENED}),
    )
    public = [f"https://{PUBLIC}/", f"https://[{PUBLIC_SIX}]/", "https://public-nat64.test/"]
    public += [f"https://{name}/" for name in ("public.test", "both.test", "PUBLIC.test")]
    opened = [f"https://{OPENED}/", f"https://[{OPENED_SIX}]/", "https://opened.test/", "https://opened6.test/"]
    opened += ["http://plain.test/", "http://plain-opened.test/", f"http://{OPENED}/", *public]
    results: dict[str, str] = {}
    async with Sender(EgressPolicy(), tls=world.tls) as sender:
        results |= {f"default {url}": await outcome(sender, url) for url in public}
        results |= {f"closed {url}": await outcome(sender, url) for url in opened[:4]}
    async with Sender(private, tls=world.tls) as sender:
        results |= {f"opened {url}": await outcome(sender, url) for url in opened}
        results |= {
            f"beside {address}": await outcome(sender, f"https://{f'[{address}]' if ':' in address else address}/")
            for address in ("10.77.1.9", "fd77:0:0:1::9", "127.0.0.1", "169.254.169.254", "fd00:ec2::254")
        }
    return results


async def rebinding(world: World, rounds: int) -> dict[str, object]:
    names = ("flip.test", "flip.test", "shuffled.test", "six.test", "plain.test")
    policy = EgressPolicy(http_hosts=frozenset({*REBINDING, "plain.test"}))
    async with Sender(policy, tls=world.tls) as sender:
        outcomes: Counter[str] = Counter()

        async def act(number: int) -> str:
            name = names[number % len(names)]
            result = await outcome(sender, f"http://{name}/round/{number}")
            outcomes[f"{name} {result}"] += 1
            return result

        await together(rounds, act)
    return {
        "outcomes": dict(outcomes),
        "questions": dict(world.names.questions),
        "good": dict(world.names.good),
        "opened": await world.packets.take(),
    }


async def main(scratch: Path, rounds: int, seed: int) -> dict[str, object]:
    make_everything_local(scratch)
    table = [json.loads(line) for line in (HERE / "hostile_urls.jsonl").read_text().splitlines()]
    urls = [url for _, url in table]
    async with World(scratch, seed) as world:
        report: dict[str, object] = {}
        async with Sender(EgressPolicy(), tls=world.tls) as sender:
            results = await each(lambda url: outcome(sender, url), urls)
        report["guarded"] = {"results": results, "opened": await world.packets.take()}
        results = await with_the_guard_at_the_socket_only(world, urls)
        report["at the socket"] = {"results": results, "opened": await world.packets.take()}
        results = await with_no_guard(urls)
        report["unguarded"] = {"results": results, "opened": await world.packets.take()}
        world.served.clear()
        report["controls"] = {"results": await controls(world), "opened": await world.packets.take()}
        report["served"] = [[*key, count] for key, count in world.served.items()]
        report["rebinding"] = await rebinding(world, rounds)
        outcomes = await together(200, check_then_connect)
        report["check then connect"] = {"outcomes": dict(outcomes), "opened": await world.packets.take()}
        return report


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the service does
        json.dump(runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))), sys.stdout)
