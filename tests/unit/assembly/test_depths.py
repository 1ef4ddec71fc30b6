"""Who scrapes gets what is known, in time, whatever hangs."""

from __future__ import annotations

import asyncio

import pytest

from forebay.adapters.memory import MemoryLog, MemoryQueue, MemoryStore
from forebay.assembly.depths import refresh_depths
from forebay.core.errors import Unavailable
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.ports.event_log import LogBatch
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import ACCEPTED_AT, request

CHANNELS = [Channel("echo", lane) for lane in Lane]


class HalfDeaf(MemoryQueue):
    """Tells of every lane but one, of which it never does."""

    async def depth(self, channel: Channel) -> int:
        if channel.lane is Lane.HIGH:
            await asyncio.Event().wait()
        return 7


async def test_a_lane_that_hangs_holds_up_neither_the_others_nor_the_answer() -> None:
    metrics = Metrics()
    async with asyncio.timeout(10.0):
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            await refresh_depths(HalfDeaf(MemoryLog()), None, metrics, CHANNELS, within_s=0.05)
    shown = {
        lane: metrics.registry.get_sample_value("forebay_queue_depth", {"model": "echo", "lane": lane}) for lane in Lane
    }
    assert shown[Lane.NORMAL] == shown[Lane.LOW] == 7.0


async def test_the_age_of_the_oldest_is_told_and_none_where_nothing_waits() -> None:
    metrics, store = Metrics(), MemoryStore()
    facts = (request(2, model="echo"), request(5, model="echo"))
    await store.project([LogBatch(source="log", start="", end="1", facts=facts)])
    await refresh_depths(MemoryQueue(MemoryLog()), store, metrics, CHANNELS, clock=lambda: ACCEPTED_AT + 10.0)
    shown = {
        lane.value: metrics.registry.get_sample_value(
            "forebay_queue_oldest_age_seconds", {"model": "echo", "lane": lane}
        )
        for lane in Lane
    }
    assert shown == {"high": 0.0, "normal": 8.0, "low": 0.0}
