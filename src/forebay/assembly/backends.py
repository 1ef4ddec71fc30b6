"""Which adapter stands behind each port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from forebay.adapters.files import FilesBlobs
from forebay.adapters.memory import (
    MemoryApiKeys,
    MemoryBlobs,
    MemoryCancellations,
    MemoryEventLog,
    MemoryFleet,
    MemoryLog,
    MemoryQueue,
    MemoryQuotas,
    MemoryStore,
    MemoryWebhookEndpoints,
)
from forebay.adapters.sqlite import (
    Database,
    SqliteApiKeys,
    SqliteCancellations,
    SqliteEventLog,
    SqliteQueue,
    SqliteQuotas,
    SqliteStore,
    SqliteWebhookEndpoints,
)
from forebay.assembly.waiting import until_there
from forebay.core.errors import Misconfigured
from forebay.core.foreign import ForeignClocks
from forebay.ports.api_keys import ApiKeys
from forebay.ports.blobs import BlobStore
from forebay.ports.cancellations import Cancellations
from forebay.ports.event_log import EventLog
from forebay.ports.fleet import Fleet
from forebay.ports.queue import Durability, Queue
from forebay.ports.quotas import Quotas
from forebay.ports.store import ResultStore
from forebay.ports.webhook_endpoints import WebhookEndpoints
from forebay.settings import Settings

if TYPE_CHECKING:
    from forebay.adapters.postgres import PostgresStore
    from forebay.assembly.kafka import KafkaBackends

WITH_STORE = frozenset({"api", "projector", "scheduler", "webhooks"})
"""Roles that read or write visible job state; a worker never opens the store."""


class Owned(Struct, frozen=True):
    """What operators and tenants have made, and no rebuild touches."""

    keys: ApiKeys
    quotas: Quotas
    endpoints: WebhookEndpoints


class Backends(Struct, frozen=True, kw_only=True):
    """One adapter for each port. `store` and `owned` are None where no role of the process uses them."""

    queue: Queue
    events: EventLog
    store: ResultStore | None
    owned: Owned | None
    blobs: BlobStore
    fleet: Fleet
    cancellations: Cancellations


@contextlib.asynccontextmanager
async def open_backends(
    settings: Settings,
    roles: Collection[str],
    models: Collection[str],
    *,
    clocks: ForeignClocks,
    whole_log: bool = False,
) -> AsyncIterator[Backends]:
    """The adapters that the settings name and the roles need, opened, and closed in the end.

    `models` are those whose requests this process sends or takes; the `clocks` are of all that there are. A `whole_log`
    is followed alone, whatever other projectors do. Waits for brokers and databases that are away, and says so in the
    log.
    """
    async with contextlib.AsyncExitStack() as stack:
        database: Database | None = None
        if "sqlite://" in (settings.queue, settings.store) and (not settings.on_kafka or WITH_STORE & set(roles)):
            durability = Durability.FLUSHED if settings.synchronous == "full" else Durability.PROCESS
            database = Database(settings.data_dir, durability=durability).open()
            stack.push_async_callback(database.close)
        fleet: Fleet = MemoryFleet()
        cancellations: Cancellations
        if settings.on_kafka:
            opened = await _open_kafka(settings, roles, models, stack, clocks=clocks, whole_log=whole_log)
            queue: Queue = opened.queue
            events: EventLog = opened.events
            fleet, cancellations = opened.fleet, opened.cancellations
        elif database is not None:
            queue, events = SqliteQueue(database), SqliteEventLog(database)
            cancellations = SqliteCancellations(database)
        else:
            memory = MemoryLog()
            queue, events = MemoryQueue(memory), MemoryEventLog(memory)
            cancellations = MemoryCancellations()
        store, owned = await _open_store(settings, database, stack) if WITH_STORE & set(roles) else (None, None)
        yield Backends(
            queue=queue,
            events=events,
            store=store,
            owned=owned,
            blobs=await _open_blobs(settings),
            fleet=fleet,
            cancellations=cancellations,
        )


@contextlib.asynccontextmanager
async def open_owned(settings: Settings) -> AsyncIterator[Owned]:
    """Only what is owned: beside a service that runs. Raises Misconfigured, Unavailable."""
    if settings.store == "memory://":
        raise Misconfigured(
            "with store memory:// keys, quotas and endpoints are in the memory of the service: give it its first key "
            "with api_key_file, and set its default quotas"
        )
    async with contextlib.AsyncExitStack() as stack:
        if settings.store.startswith("postgresql://"):
            yield _owned_by(await _open_postgres(settings, stack))
        else:
            yield _open_files(settings, stack)


async def _open_store(
    settings: Settings, database: Database | None, stack: contextlib.AsyncExitStack
) -> tuple[ResultStore, Owned]:
    if settings.store == "memory://":
        return MemoryStore(), Owned(MemoryApiKeys(), MemoryQuotas(), MemoryWebhookEndpoints())
    if settings.store == "sqlite://":
        assert database is not None
        return SqliteStore(database), _open_files(settings, stack)
    store = await _open_postgres(settings, stack)
    return store, _owned_by(store)


def _open_files(settings: Settings, stack: contextlib.AsyncExitStack) -> Owned:
    keys, quotas = SqliteApiKeys(settings.data_dir), SqliteQuotas(settings.data_dir)
    endpoints = SqliteWebhookEndpoints(settings.data_dir)
    for one in (keys, quotas, endpoints):
        stack.push_async_callback(one.close)
    return Owned(keys, quotas, endpoints)


def _owned_by(store: PostgresStore) -> Owned:
    return Owned(store.keys, store.quotas, store.endpoints)


async def _open_postgres(settings: Settings, stack: contextlib.AsyncExitStack) -> PostgresStore:
    try:
        from forebay.adapters.postgres import PostgresStore
    except ImportError as error:
        raise _missing("PostgreSQL", "postgres", error) from error
    store = await until_there("PostgreSQL", lambda: PostgresStore.open(settings.store))
    stack.push_async_callback(store.close)
    return store


async def _open_kafka(
    settings: Settings,
    roles: Collection[str],
    models: Collection[str],
    stack: contextlib.AsyncExitStack,
    *,
    clocks: ForeignClocks,
    whole_log: bool,
) -> KafkaBackends:
    try:
        from forebay.assembly.kafka import open_kafka
    except ImportError as error:
        raise _missing("Kafka", "kafka", error) from error
    return await open_kafka(settings, roles, models, stack, clocks=clocks, whole_log=whole_log)


async def _open_blobs(settings: Settings) -> BlobStore:
    scheme, _, place = settings.blobs.partition("://")
    if scheme == "memory":
        return MemoryBlobs()
    if scheme == "files":
        folder = Path(place) if place else settings.data_dir / "blobs"
        return FilesBlobs(folder, fsync=settings.synchronous == "full" or settings.on_kafka)
    try:
        from forebay.adapters.s3 import S3Blobs
    except ImportError as error:
        raise _missing("an object store", "s3", error) from error
    blobs = S3Blobs(settings.blobs)
    await until_there("the object store", blobs.check)
    return blobs


def _missing(what: str, extra: str, error: ImportError) -> Misconfigured:
    return Misconfigured(f"{what} needs a library that is not installed ({error.name}): pip install 'forebay[{extra}]'")
