"""A projector's position is committed before the rows that it stands for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forebay.adapters.postgres import projection
from forebay.core.job import Job
from forebay.ports.event_log import LogBatch

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

BETWEEN_S = 0.03
"""Whatever else a process does between two transactions."""


async def transact(connection: Connection, batches: Sequence[LogBatch], *, may_be_new: bool) -> list[Job] | None:
    await connection.execute("BEGIN")
    if not await projection._advance(connection, batches):
        await connection.execute("ROLLBACK")
        return None
    await connection.execute("COMMIT")
    await asyncio.sleep(BETWEEN_S)
    await connection.execute("BEGIN")
    changed = await projection._apply(connection, batches, may_be_new=may_be_new)
    await connection.execute(projection._commit(changed))
    return changed


def plant() -> None:
    projection._transact = transact
