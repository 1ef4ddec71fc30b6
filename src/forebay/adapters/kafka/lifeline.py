"""Whether a client of librdkafka still knows a broker that it could ask.

A broker that is stopped in order leaves itself out of its last answers about the cluster, and a client that hears one
forgets it. If it was the last one, librdkafka begins again with the bootstrap servers. But if the connection ends while
that answer is still being read, 2.16 calls this off (confluentinc/librdkafka#5301), and the client is dead: it reports
nothing, asks nobody, and no time heals it. Only its statistics show that no broker is left. Whoever owns the client
then makes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

LOOK_EVERY_S = 1.0
PLACELESS = frozenset({"internal", "logical"})
"""Brokers without an address of their own: librdkafka's threads, and the coordinator, which is one of the others."""

CERTAIN_AFTER = 2
"""Looks in a row: for a moment there is no broker whenever it begins again."""


class _Broker(Struct):
    source: str


class _Statistics(Struct):
    brokers: dict[str, _Broker]


_decode = msgspec.json.Decoder(_Statistics).decode


class Lifeline:
    """Of one client. Statistics come with its poll: while it waits in a commit nothing is seen, so at worst until its
    session's timeout."""

    def __init__(self) -> None:
        self._without = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """For the client's configuration."""
        return {"statistics.interval.ms": int(LOOK_EVERY_S * 1000), "stats_cb": self._look}

    @property
    def cut(self) -> bool:
        """Whether the client is dead."""
        return self._without >= CERTAIN_AFTER

    def renew(self) -> None:
        """There is another client, of the same configuration."""
        self._without = 0

    def _look(self, statistics: str) -> None:
        brokers = _decode(statistics).brokers.values()
        self._without = 0 if any(one.source not in PLACELESS for one in brokers) else self._without + 1
