"""Cancellations, kept over a restart: what waits in the queue then still need not run."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import structlog

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.statements import write_rows
from forebay.core.canceled import MOST
from forebay.core.errors import Unavailable
from forebay.ports.cancellations import Cancellations

log = structlog.get_logger(__name__)

_FORGET = f"DELETE FROM canceled WHERE seq <= (SELECT max(seq) FROM canceled) - {MOST}"


class SqliteCancellations(Cancellations):
    """All roles are in this process, so they hear at once."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        for tenant, job_id in database.read("SELECT tenant, job_id FROM canceled ORDER BY seq"):
            self.heard.add(tenant, job_id)

    async def announce(self, tenant: str, job_id: str) -> None:
        self.heard.add(tenant, job_id)
        try:
            await self._database.write(_keep, (tenant, job_id), durable=False)
        except Unavailable as error:  # best effort: after a restart it would run in vain
            log.warning("cancellations.not_kept", job=job_id, error=error.message)


def _keep(connection: apsw.Connection, calls: Sequence[tuple[str, str]]) -> Sequence[None]:
    write_rows(connection, "INSERT INTO canceled (tenant, job_id) VALUES", calls)
    connection.execute(_FORGET)
    return [None] * len(calls)
