"""Dead letters: a copy of the record as it was, with headers that say why it ended and where it stood."""

from __future__ import annotations

from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Headers, Record
from forebay.core.errors import PayloadTooLarge
from forebay.core.event import JobError

PREFIX = "forebay-error-"
MESSAGE_MAX = 1000
LEFT_OUT = f"{PREFIX}left-out"


class DeadLetters:
    """Writes to the dead-letter topic for one consumer group."""

    def __init__(self, publisher: Publisher, topic: str, group: str, *, publish_wait_s: float) -> None:
        self._publisher = publisher
        self._topic = topic
        self._group = group
        self._publish_wait_s = publish_wait_s

    async def write(self, entry: Entry, error: JobError, attempt: int) -> None:
        """Durable when this returns. Raises Unavailable.

        A record whose headers cannot be read goes without them, which ours say. One that leaves no room for ours goes
        without its value, and if need be without its own headers and its key: the whole of it stays where they say.
        """
        key, value = _bytes(entry.record.key()), _bytes(entry.record.value())
        own = [(name, text or b"") for name, text in entry.headers or ()]
        said = self._said(entry, error, attempt)
        try:
            await self._publish(key, value, [*own, *said])
        except PayloadTooLarge:
            try:
                await self._publish(key, None, [*own, *said, (LEFT_OUT, b"value")])
            except PayloadTooLarge:
                await self._publish(None, None, [*said, (LEFT_OUT, b"key, value, headers")])

    async def _publish(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._publisher.publish([Record(self._topic, key, value, headers)], wait_s=self._publish_wait_s)

    def _said(self, entry: Entry, error: JobError, attempt: int) -> Headers:
        topic, partition = entry.place
        said = {
            "code": error.code,
            "message": error.message[:MESSAGE_MAX],
            "topic": topic,
            "partition": str(partition),
            "offset": str(entry.offset),
            "group": self._group,
            "attempt": str(attempt),
        }
        if entry.headers is None:
            said["unreadable"] = "headers"
        return [(PREFIX + name, text.encode()) for name, text in said.items()]


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
