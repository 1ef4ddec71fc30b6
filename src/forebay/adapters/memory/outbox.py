"""The outbox in a dictionary."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from forebay.core.delivery import DeliveryEvent, DeliveryStatus, WebhookDelivery, apply_delivery
from forebay.core.outbox import DeliveryKey, HeldOutput, OutboxRows
from forebay.core.partials import Key
from forebay.ports.outbox import DeliveryPage, DeliveryPlace, DeliveryQuery, OutboxCount


class MemoryOutbox:
    """What `MemoryStore` keeps of deliveries."""

    def __init__(self) -> None:
        self._rows: dict[DeliveryKey, WebhookDelivery] = {}
        self._held: dict[Key, list[HeldOutput]] = {}
        self._leases: dict[DeliveryKey, tuple[str, float]] = {}  # holder, and until when

    def project(self, told: OutboxRows, gone: Iterable[Key]) -> None:
        for key in told.deleted:
            self._held.pop(key, None)
        for held in told.held:
            self._held.setdefault((held.tenant, held.job_id), []).append(held)
        known = {place: self._rows[place] for place in told.named if place in self._rows}
        if told.deleted:
            known.update((place, row) for place, row in self._rows.items() if _job(row) in told.deleted)
        for place, changed in told.changes(known, gone).items():
            if changed is None:
                self._rows.pop(place, None)
            else:
                self._rows[place] = changed

    def held_of(self, keys: Iterable[Key]) -> list[HeldOutput]:
        return [held for key in keys for held in self._held.pop(key, [])]

    def clear(self) -> None:
        self._rows.clear()
        self._held.clear()
        self._leases.clear()

    def forget(self, key: Key) -> None:
        """Of a deleted job of which nothing need be known any more."""
        self._rows = {place: row for place, row in self._rows.items() if _job(row) != key}
        self._held.pop(key, None)

    def is_pending(self, key: Key) -> bool:
        return any(row.status is DeliveryStatus.PENDING for row in self._of(key))

    def claim(
        self,
        now: float,
        holder: str,
        until: float,
        limit: int,
        each: int,
        only: Collection[str] | None,
        without: Collection[str],
    ) -> list[WebhookDelivery]:
        found: list[WebhookDelivery] = []
        counts: dict[str, int] = {}
        for row in sorted(self._free(now), key=lambda row: (row.next_at or 0.0, row.id)):
            receiver = row.receiver
            if row.next_at is None or row.next_at > now or counts.get(receiver, 0) >= each:
                continue
            if receiver in without or (only is not None and receiver not in only):
                continue
            counts[receiver] = counts.get(receiver, 0) + 1
            found.append(row)
        return self._lease(found[:limit], holder, until)

    def claim_late(self, now: float, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        late = sorted((row for row in self._free(now) if row.gives_up_at <= now), key=lambda row: row.gives_up_at)
        return self._lease(late[:limit], holder, until)

    def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        for event in events:
            place = (event.tenant, event.job_id, event.delivery_id)
            if self._leases.get(place, ("", 0.0))[0] == holder:
                del self._leases[place]
                if place in self._rows:
                    self._rows[place] = apply_delivery(self._rows[place], event)

    def give_back(self, holder: str) -> None:
        self._leases = {place: lease for place, lease in self._leases.items() if lease[0] != holder}

    def deliveries(self, key: Key, limit: int) -> list[WebhookDelivery]:
        return [replace(row, body=b"") for row in sorted(self._of(key), key=_place)][:limit]

    def delivery(self, key: Key, delivery_id: str) -> WebhookDelivery | None:
        row = self._rows.get((*key, delivery_id))
        return row if row is not None and row.type else None

    def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        rows = [row for row in self._rows.values() if row.tenant == query.tenant and row.type]
        ranged = [row for row in rows if row.created_at >= query.since]
        looked_at = sorted((row for row in ranged if query.after is None or _place(row) > query.after), key=_place)
        within = looked_at[: query.look]
        found = [
            replace(row, body=b"")
            for row in within
            if query.endpoint in (None, row.endpoint) and query.status in (None, row.status)
        ]
        if len(found) > query.limit:
            return DeliveryPage(found[: query.limit], _place(found[query.limit - 1]))
        return DeliveryPage(found, _place(within[-1]) if len(within) < len(looked_at) else None)

    def count(self) -> OutboxCount:
        due = [row.next_at or 0.0 for row in self._rows.values() if row.status is DeliveryStatus.PENDING and row.type]
        return OutboxCount(pending=len(due), due_at=min(due, default=None))

    def _free(self, now: float) -> list[WebhookDelivery]:
        return [
            row
            for place, row in self._rows.items()
            if row.status is DeliveryStatus.PENDING and row.type and self._leases.get(place, ("", 0.0))[1] <= now
        ]

    def _lease(self, rows: list[WebhookDelivery], holder: str, until: float) -> list[WebhookDelivery]:
        self._leases.update((_key(row), (holder, until)) for row in rows)
        return rows

    def _of(self, key: Key) -> list[WebhookDelivery]:
        return [row for row in self._rows.values() if _job(row) == key and row.type]


def _key(row: WebhookDelivery) -> DeliveryKey:
    return row.tenant, row.job_id, row.id


def _job(row: WebhookDelivery) -> Key:
    return row.tenant, row.job_id


def _place(row: WebhookDelivery) -> DeliveryPlace:
    return row.created_at, row.id
