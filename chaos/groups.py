"""Consumer groups as brokers describe them: whether all have their part, and whether a projector that is held was
overtaken, so that what the group had given it went on in the store meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import asyncpg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ANSWER_WITHIN_S = 10.0
SETTLED_WITHIN_S = 30.0
TURN_S = 0.1

Members = Mapping[str, frozenset[str]]
"""Sources by member."""


class Group:
    def __init__(self, bootstrap: str, name: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._name = name

    async def members(self) -> Members:
        """Raises KafkaException."""
        return await asyncio.to_thread(self._members)

    async def settled(self, of: int) -> Members:
        """Once it has so many members and each has something. Raises TimeoutError."""
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while True:
                try:
                    members = await self.members()
                except KafkaException:  # its coordinator is not known yet
                    members = {}
                if len(members) == of and all(members.values()):
                    return members
                await asyncio.sleep(TURN_S)

    def _members(self) -> Members:
        described = self._admin.describe_consumer_groups([self._name])[self._name].result(ANSWER_WITHIN_S)
        return {
            member.member_id: frozenset(
                f"{part.topic}:{part.partition}" for part in member.assignment.topic_partitions or ()
            )
            for member in described.members
        }


class Overtaking:
    """Watches one time that one of `members` is held."""

    def __init__(self, dsn: str, group: Group, members: Members) -> None:
        self._dsn = dsn
        self._group = group
        self._members = members
        self.seen = False

    async def watch(self, until: float) -> None:
        """Until then on the monotonic clock, while it is held. Which member that is shows by its being taken for dead;
        what it may have sent just before it was held has arrived by then."""
        before: Mapping[str, str] | None = None
        while time.monotonic() < until and not self.seen:
            await asyncio.sleep(TURN_S)
            left = await self._group.members()
            held = [sources for member, sources in self._members.items() if member not in left]
            if len(held) == 1:
                now = await self._positions()
                before = before or now
                self.seen = any(now.get(source) != before.get(source) for source in held[0])

    async def _positions(self) -> Mapping[str, str]:
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetch("SELECT source, position FROM forebay.positions")
            return {row["source"]: row["position"] for row in found}
        finally:
            await connection.close()
