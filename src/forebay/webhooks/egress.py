"""The guard at the socket: connections to judged addresses only, and to nothing else, whoever asks.

Three times, because each would be enough and none of them shall be: every answer of the resolver is judged, and the
connection is made to what was judged, without asking again; every socket is judged before it exists, which also holds
for addresses that are looked up by nobody; and the peer is judged before a byte of HTTP is written.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from forebay.core.egress import EgressPolicy
from forebay.core.errors import ForebayError
from forebay.webhooks.lookup import Lookup

ANSWERS_MOST = 8
"""Addresses of one name that are tried; all of them are judged."""
KEEP_S = 1.5
"""How long a connection is kept for the next delivery: less than common servers keep theirs (2 to 5 s), so that it is
seldom used while the other side closes it."""


class EgressRefused(ForebayError):
    """No OSError on purpose: of one aiohttp would go on to the next address."""

    code = "egress_refused"


class GuardedResolver(AbstractResolver):
    """All answers must pass. One that does not makes the name one of someone who tries."""

    def __init__(self, policy: EgressPolicy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._lookup(host)
        for address in addresses:
            if reason := self._policy.judge(address, host=host):
                raise EgressRefused(f"the name leads to an address that is {reason}")
        if not addresses:
            raise OSError("the name has no address")
        return [_result(host, address, port) for address in addresses[:ANSWERS_MOST]]

    async def close(self) -> None:
        pass


class GuardedConnector(aiohttp.TCPConnector):
    """No cache of names: each try asks, unless a connection that was judged is still open."""

    def __init__(self, policy: EgressPolicy, lookup: Lookup, tls: ssl.SSLContext) -> None:
        super().__init__(
            resolver=GuardedResolver(policy, lookup),
            use_dns_cache=False,
            socket_factory=self._make_socket,
            ssl=tls,
            keepalive_timeout=KEEP_S,
            limit=0,  # the dispatcher bounds what is under way
        )
        self._policy = policy

    def _make_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, place = info
        self._judge(place)
        return socket.socket(family=family, type=kind, proto=protocol)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> aiohttp.client_proto.ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        try:
            peer = protocol.transport.get_extra_info("peername") if protocol.transport else None
            if peer is None:  # it has hung up already: there is nobody to judge, and nothing was sent
                raise aiohttp.ServerDisconnectedError
            self._judge(peer)
        except (EgressRefused, aiohttp.ServerDisconnectedError):
            protocol.abort()
            raise
        return protocol

    def _judge(self, place: Sequence[object] | None) -> None:
        reason = self._policy.judge(str(place[0])) if place else "unknown"
        if reason:
            raise EgressRefused(f"the address is {reason}")


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST
    )
