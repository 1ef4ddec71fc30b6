"""Visible job state in PostgreSQL 13 or newer, for several processes on several hosts.

`Database` owns the connections, PostgresStore is the port on top of it. Used from one event loop.
"""

from __future__ import annotations

from forebay.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
