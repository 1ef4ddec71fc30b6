"""How much of a topic a group has not done, asked of the brokers: nobody need be there who reads it."""

from __future__ import annotations

from confluent_kafka import TopicPartition

from forebay.adapters.kafka.offsets import Offsets
from forebay.adapters.kafka.tracker import Tracker


def depth(offsets: Offsets, topic: str, group: str) -> int:
    """Messages of `topic` that `group` has not done, as far as it has committed. Blocks. Raises Unavailable."""
    sources = offsets.sources_of(topic)
    committed = offsets.committed(group, sources)  # first, so that it is not beyond the ends
    starts, ends = offsets.bounds(sources)
    return sum(_waiting(committed.get(source), starts[source], ends[source]) for source in ends)


def _waiting(committed: TopicPartition | None, start: int, end: int) -> int:
    """Of one partition whose records are those from `start` to before `end`."""
    if committed is None or not start <= committed.offset <= end:
        return end - start  # never committed, or the log went on without the group: it is read from its start
    tracker = Tracker.load(committed.offset, committed.metadata)
    return max(0, end - tracker.watermark - tracker.done_beyond)
