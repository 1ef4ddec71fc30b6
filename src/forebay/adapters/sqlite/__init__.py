"""Queue, event log and store in one SQLite file, for one process on one host.

`Database` owns the file; the others are views of it, all used from one event loop.
"""

from __future__ import annotations

from forebay.adapters.sqlite.api_keys import SqliteApiKeys
from forebay.adapters.sqlite.cancellations import SqliteCancellations
from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.event_log import SqliteEventLog
from forebay.adapters.sqlite.queue import SqliteQueue
from forebay.adapters.sqlite.quotas import SqliteQuotas
from forebay.adapters.sqlite.store import SqliteStore
from forebay.adapters.sqlite.webhook_endpoints import SqliteWebhookEndpoints

__all__ = [
    "Database",
    "SqliteApiKeys",
    "SqliteCancellations",
    "SqliteEventLog",
    "SqliteQueue",
    "SqliteQuotas",
    "SqliteStore",
    "SqliteWebhookEndpoints",
]
