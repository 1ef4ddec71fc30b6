"""Facts about a batch, each said once, as far as anybody can know: reserved like jobs with a key (`idempotency.py`).

The batch is reserved under its own key, each part of its file under the number of its first line, and its end under the
number of the line that would come next: so no line can come behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from forebay.api.idempotency import Keeper, Key, KeyReused
from forebay.core.errors import Conflict, Unavailable
from forebay.core.job_batch import BatchEvent, BatchEventKind, RejectedLine
from forebay.core.reservation import Reservation, digest_of_key
from forebay.core.webhook import WebhookTarget
from forebay.ports.event_log import EventLog

LOGGED_WITHIN_S = 2.5
"""Whoever calls while the backend is away is answered within 3 s."""

_END = "end"


class BatchDiffers(Conflict):
    """Under this id another file came before, or the same one with other defaults."""

    code = "batch_differs"


def key_of(batch_id: str) -> Key:
    """That of a batch under an id, however it came by it."""
    return Key(digest_of_key("batch", batch_id[:36]), batch_id)


class BatchLog:
    """`clock` gives seconds since the epoch."""

    def __init__(self, keeper: Keeper, events: EventLog, clock: Callable[[], float]) -> None:
        self._keeper = keeper
        self._events = events
        self._clock = clock

    async def open(
        self,
        tenant: str,
        key: Key,
        issue: Callable[[float], str],
        *,
        fingerprint: str,
        model: str,
        webhooks: tuple[WebhookTarget, ...],
    ) -> Reservation:
        """The reservation of the batch itself, whose id `job_id` is. Raises BatchDiffers, KeyInUse, Unavailable."""
        now = self._clock()
        wanted = self._wanted(tenant, key.job_id or issue(now), key.digest, fingerprint, now)

        async def publish(under: Reservation) -> None:
            await self._say(under, BatchEventKind.OPENED, model=model, webhooks=webhooks)

        try:
            return (await self._keeper.accept(wanted, publish))[0]
        except KeyReused as error:
            raise BatchDiffers("under this id, or key, a batch was begun with another query") from error

    async def settle(
        self,
        tenant: str,
        batch_id: str,
        lines: tuple[int, int],
        *,
        fingerprint: str,
        publish_jobs: Callable[[float], Awaitable[int]],
        rejected: tuple[RejectedLine, ...],
    ) -> bool:
        """The part of the file from one line to another: first its jobs, of which `publish_jobs` gives the number, then
        the word that they are there. `publish_jobs` is told when they were accepted, the same whoever publishes them.

        Returns whether it was there before. Raises BatchDiffers, KeyInUse, Unavailable.
        """
        first, last = lines

        async def publish(under: Reservation) -> None:
            accepted = await publish_jobs(under.accepted_at)
            await self._say(under, BatchEventKind.LINES, lines=last, accepted=accepted, rejected=rejected)

        wanted = self._wanted(tenant, batch_id, _line_key(batch_id, first), fingerprint, self._clock())
        try:
            return (await self._keeper.accept(wanted, publish))[1]
        except KeyReused as error:
            raise BatchDiffers(
                f"lines {first} to {last} are not those that came under this id before, or lie behind its end"
            ) from error

    async def seal(self, tenant: str, batch_id: str, lines: int) -> tuple[float, bool]:
        """There are no more lines. Returns when that was said, and whether it was before. Raises BatchDiffers if there
        are more."""

        async def publish(under: Reservation) -> None:
            await self._say(under, BatchEventKind.SEALED, lines=lines)

        wanted = self._wanted(tenant, batch_id, _line_key(batch_id, lines + 1), _END, self._clock())
        try:
            standing, replayed = await self._keeper.accept(wanted, publish)
        except KeyReused as error:
            raise BatchDiffers(f"there are more lines than {lines} under this id") from error
        return standing.accepted_at, replayed

    async def cancel(self, tenant: str, batch_id: str) -> None:
        """Nobody wants what is not final. Repeating it is harmless."""
        canceled = BatchEvent(tenant=tenant, batch_id=batch_id, kind=BatchEventKind.CANCELED, at=self._clock())
        await self._publish(canceled)

    def _wanted(self, tenant: str, batch_id: str, key: str, fingerprint: str, now: float) -> Reservation:
        """Times are to the millisecond, as an id says them."""
        return Reservation(
            tenant=tenant, key=key, job_id=batch_id, fingerprint=fingerprint, accepted_at=int(now * 1000) / 1000
        )

    async def _say(self, under: Reservation, kind: BatchEventKind, **what: Any) -> None:
        await self._publish(
            BatchEvent(
                tenant=under.tenant,
                batch_id=under.job_id,
                kind=kind,
                at=under.accepted_at,
                key=under.key,
                fingerprint=under.fingerprint,
                **what,
            )
        )

    async def _publish(self, event: BatchEvent) -> None:
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._events.publish([event])
        except TimeoutError as error:
            raise Unavailable(f"the log has not taken it within {LOGGED_WITHIN_S:g} s") from error


def _line_key(batch_id: str, line: int) -> str:
    return digest_of_key("batch line", f"{batch_id[:36]}/{line}")
