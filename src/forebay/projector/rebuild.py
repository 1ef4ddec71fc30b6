"""Visible job state made anew from the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct

from forebay.core.errors import Unavailable
from forebay.ports.event_log import START, EventLog
from forebay.ports.store import ResultStore
from forebay.projector.projector import Projector
from forebay.telemetry.metrics import Metrics

LOOK_EVERY_S = 0.25
LOOK_AT_MOST = 20
"""A look at the progress counts what is left of the log: at most one part in so many of the time goes into it."""

log = structlog.get_logger()


class Progress(Struct, frozen=True):
    """How many records of the log have been applied again, of how many there were when the rebuild began."""

    done: int
    total: int


def _tell_nobody(progress: Progress) -> None:
    pass


async def rebuild(
    events: EventLog, store: ResultStore, metrics: Metrics, on_progress: Callable[[Progress], None] = _tell_nobody
) -> None:
    """Empty the derived tables and fill them from the whole log; returns when jobs can be read again.

    A rebuild that was begun before and not ended is gone on with. Projectors that run meanwhile help: each batch is
    applied by one of them, and whoever passes last where the log ended ends the rebuild. Nothing but these tables is
    touched, and nobody is told of a job again. While the backend is away it waits; raises Unavailable if it is away at
    the beginning. Cancelled or killed it loses nothing: call it again.
    """
    until = await store.rebuilding()
    if until is None:
        await store.begin_rebuild(events.ends)
        until = await store.rebuilding() or {}
        log.info("rebuild.begun", sources=len(until))
    begin = await _progress(events, store, until)
    on_progress(begin)
    projector = Projector(events, store, metrics)
    running = asyncio.create_task(projector.run(), name="rebuild")
    try:
        await _watch(events, store, until, begin, running, on_progress)
    finally:
        running.cancel()  # what it may be writing beyond the end is written whole or not at all
        await asyncio.wait({running})


async def _watch(
    events: EventLog,
    store: ResultStore,
    until: Mapping[str, str],
    begin: Progress,
    running: asyncio.Task[None],
    on_progress: Callable[[Progress], None],
) -> None:
    """Until the rebuild has ended, or the projector with an error, which is raised."""
    pause_s, total = LOOK_EVERY_S, begin.total
    while not running.done():
        began = time.monotonic()
        try:
            if await store.rebuilding() is None:
                on_progress(Progress(total, total))
                return
            progress = await _progress(events, store, until)
            total = progress.total
            on_progress(progress)
            pause_s = max(LOOK_EVERY_S, LOOK_AT_MOST * (time.monotonic() - began))
        except Unavailable as error:  # the projector tells of it, and goes on once it is over
            pause_s = error.retry_after_s
        await asyncio.wait({running}, timeout=pause_s)
    running.result()


async def _progress(events: EventLog, store: ResultStore, until: Mapping[str, str]) -> Progress:
    beyond = await events.behind(until)
    all_of_it = await events.behind({})
    there = await store.positions()
    left = await events.behind({source: there.get(source, START) for source in until})
    total = sum(all_of_it.get(source, 0) - beyond.get(source, 0) for source in until)
    still = sum(max(0, left.get(source, 0) - beyond.get(source, 0)) for source in until)
    return Progress(max(0, total - still), total)
