"""Everything in this process's memory: the fakes of the tests, held to the same contracts. Nothing survives."""

from __future__ import annotations

from forebay.adapters.memory.api_keys import MemoryApiKeys
from forebay.adapters.memory.blobs import MemoryBlobs
from forebay.adapters.memory.cancellations import MemoryCancellations
from forebay.adapters.memory.event_log import MemoryEventLog
from forebay.adapters.memory.fleet import MemoryFleet
from forebay.adapters.memory.log import MemoryLog
from forebay.adapters.memory.queue import MemoryQueue
from forebay.adapters.memory.quotas import MemoryQuotas
from forebay.adapters.memory.store import MemoryStore
from forebay.adapters.memory.webhook_endpoints import MemoryWebhookEndpoints

__all__ = [
    "MemoryApiKeys",
    "MemoryBlobs",
    "MemoryCancellations",
    "MemoryEventLog",
    "MemoryFleet",
    "MemoryLog",
    "MemoryQueue",
    "MemoryQuotas",
    "MemoryStore",
    "MemoryWebhookEndpoints",
]
