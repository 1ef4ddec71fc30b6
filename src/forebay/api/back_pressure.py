"""How long a queue may get, kept without a word to anybody on the way of a submission: what waits is learned from the
store now and then, and what this process accepts meanwhile it counts itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from forebay.api.unseen import Unseen
from forebay.core.errors import ForebayError, TooMany
from forebay.core.explain import turns_before
from forebay.core.pace import together
from forebay.core.queues import Place
from forebay.ports.fleet import Fleet
from forebay.ports.store import ResultStore

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
"""How often the store is asked what waits, while jobs are submitted. What several API processes accept meanwhile may go
beyond a bound, and no more than that."""

OLD_S = 5.0
"""What is older is not gone by: a process that had no submission to a bounded lane for so long waits for the look."""

FRESH_S = 0.1
"""Nobody is refused for what is older: a queue may have become short since."""

RETRY_LEAST_S = 1.0
RETRY_MOST_S = 600.0
RETRY_UNKNOWN_S = 60.0
"""Where no worker has measured how fast a queue drains."""


class Bounds:
    """Lets jobs into a lane of a model up to what `limits` says of the model, else to `default`; 0 lets in any number.

    `lag_s()`: how far the store is behind the log, so that what it may not have counted yet is counted here for longer.
    While the store is away what was known holds, and what is accepted here is counted.
    """

    def __init__(
        self,
        *,
        store: ResultStore,
        fleet: Fleet,
        limits: Mapping[str, int | Mapping[str, int] | None],
        default: int,
        monotonic: Callable[[], float],
        lag_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._default = default
        self._limits = limits
        self._monotonic = monotonic
        self._lag_s = lag_s
        self._seen: Mapping[Place, int] = {}
        self._looked_at = float("-inf")
        self._unseen = Unseen[Place]()
        self._looking: asyncio.Task[None] | None = None

    async def take(self, lanes: Mapping[Place, int], behind: int | None = None) -> None:
        """Note that so many jobs are about to be accepted into each of these lanes. Raises TooMany, with the code
        `queue_full`, where one of them is full, or where more than `behind` wait in it; then none of them may be.
        """
        if behind is not None or self._bounded(lanes):
            looking = self._look(LOOK_EVERY_S)
            if looking is not None and self._monotonic() - self._looked_at >= OLD_S:
                await asyncio.shield(looking)
            if self._full(lanes, behind):
                looking = self._look(FRESH_S)
                if looking is not None:
                    await asyncio.shield(looking)
                if full := self._full(lanes, behind):
                    raise await self._refusal(full, behind)
        self._unseen.add(lanes, self._monotonic())

    def give_back(self, lanes: Mapping[Place, int]) -> None:
        """They were not accepted after all."""
        self._unseen.subtract(lanes)

    def limit(self, model: str, lane: str) -> int:
        """0 for none."""
        limit = self._limits.get(model)
        if isinstance(limit, Mapping):
            limit = limit.get(lane)
        return self._default if limit is None else limit

    def _bounded(self, lanes: Iterable[Place]) -> bool:
        return any(self.limit(model, lane) for model, lane in lanes)

    def _full(self, lanes: Mapping[Place, int], behind: int | None) -> Place | None:
        """The first that has no room. What comes at once and is more than the bound finds it where nothing waits: a
        file's lines come by hundreds."""
        for place, jobs in lanes.items():
            waiting, limit = self._waiting(place), self.limit(*place)
            if (limit and waiting and waiting + jobs > limit) or (behind is not None and waiting > behind):
                return place
        return None

    def _waiting(self, place: Place) -> int:
        return max(0, self._seen.get(place, 0) + self._unseen[place])

    def _look(self, every_s: float) -> asyncio.Task[None] | None:
        """What learns anew what is older, beside the submission; None if nothing is."""
        if self._looking is None or self._looking.done():
            if self._monotonic() - self._looked_at < every_s:
                return None
            self._looking = asyncio.create_task(self._learn(), name="queue lengths")
        return self._looking

    async def _learn(self) -> None:
        self._unseen.ask(self._monotonic(), self._lag_s())
        try:
            counts = await self._store.queues()
        except ForebayError as error:  # nobody need await this task
            log.warning("queue_lengths.unknown", code=error.code, error=error.message)
            self._unseen.unanswered()
        else:
            self._seen = {(count.model, count.lane): count.waiting for count in counts}
            self._unseen.answered()
        self._looked_at = self._monotonic()

    async def _refusal(self, place: Place, behind: int | None) -> TooMany:
        """When there may be room: once what is too much has been worked off at the measured rate."""
        model, lane = place
        waiting, limit = self._waiting(place), self.limit(model, lane)
        room = [most for most in (limit - 1 if limit else None, behind) if most is not None]
        too_many = waiting - min(room)
        pace = together([one.pace for one in await self._fleet.reports() if one.model == model and one.pace])
        retry_s = RETRY_UNKNOWN_S
        if pace is not None:
            others = {name: count for (of, name), count in self._seen.items() if of == model}
            retry_s = turns_before(lane, too_many, others) / pace.jobs_per_s
        return TooMany(
            f"{waiting} jobs wait in the lane {lane} of {model}; {min(room)} may, for another to be accepted",
            retry_after_s=min(RETRY_MOST_S, max(RETRY_LEAST_S, retry_s)),
            code="queue_full",
        )
