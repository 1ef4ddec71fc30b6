"""Which adapter stands behind each port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from msgspec import Struct

from forebay.adapters.files import FilesBlobs
from forebay.adapters.memory import MemoryBlobs, MemoryEventLog, MemoryFleet, MemoryLog, MemoryQueue, MemoryStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.ports.fleet import Fleet
from forebay.ports.queue import Durability, Queue
from forebay.ports.store import ResultStore
from forebay.settings import Settings


class Backends(Struct, frozen=True, kw_only=True):
    """One adapter for each port."""

    queue: Queue
    events: EventLog
    store: ResultStore
    blobs: BlobStore
    fleet: Fleet


@contextlib.asynccontextmanager
async def open_backends(settings: Settings) -> AsyncIterator[Backends]:
    """The adapters that the settings name, opened, and closed in the end."""
    fleet = MemoryFleet()
    async with contextlib.AsyncExitStack() as stack:
        if settings.queue == "memory://":
            memory = MemoryLog()
            queue: Queue = MemoryQueue(memory)
            events: EventLog = MemoryEventLog(memory)
            store: ResultStore = MemoryStore()
        else:
            durability = Durability.FLUSHED if settings.synchronous == "full" else Durability.PROCESS
            database = Database(settings.data_dir, durability=durability).open()
            stack.push_async_callback(database.close)
            queue, events, store = SqliteQueue(database), SqliteEventLog(database), SqliteStore(database)
        blobs: BlobStore = MemoryBlobs()
        if settings.blobs == "files://":
            blobs = FilesBlobs(settings.data_dir / "blobs", fsync=settings.synchronous == "full")
        yield Backends(queue=queue, events=events, store=store, blobs=blobs, fleet=fleet)
