"""Routes about what waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, Answer
from forebay.api.back_pressure import Bounds
from forebay.api.explaining import Explainer
from forebay.api.queries import refuse_query
from forebay.api.reading import JobReader
from forebay.api.submission import ModelCatalog
from forebay.api.tenancy import tenant_of
from forebay.core.lanes import Lane
from forebay.core.model import ModelStatus
from forebay.core.pace import together
from forebay.core.queues import LaneCount
from forebay.ports.fleet import Fleet, ModelReport
from forebay.ports.store import ResultStore

_encode = msgspec.json.Encoder().encode


class QueueRoutes:
    def __init__(
        self,
        *,
        catalog: ModelCatalog,
        store: ResultStore,
        fleet: Fleet,
        reader: JobReader,
        explainer: Explainer,
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._fleet = fleet
        self._reader = reader
        self._explainer = explainer
        self._bounds = bounds
        self._clock = clock

    async def list_queues(self, request: Request) -> Answer:
        """Every lane of every model, of all tenants together; also those of a model that is gone from the models
        folder, while jobs of it wait or run. `rate_per_s` is absent until a worker has measured it."""
        refuse_query(request)
        counts = {(count.model, count.lane): count for count in await self._store.queues()}
        reports = await self._fleet.reports()
        places = {*counts, *((name, lane.value) for name in self._catalog.specs for lane in Lane)}
        queues = [
            self._queue(counts.get(place) or LaneCount(model=place[0], lane=place[1], waiting=0, running=0), reports)
            for place in sorted(places, key=lambda place: (place[0], _RANK.get(place[1], len(_RANK))))
        ]
        return Answer(200, _encode({"queues": queues}), (JSON_TYPE, NO_STORE))

    async def explain_job(self, request: Request) -> Answer:
        """Where the job stands, when it may start and finish, and why it waits. `causes` has the most telling first;
        expected times are absent where something stands in the way, or where no worker has measured anything yet."""
        refuse_query(request)
        job = await self._reader.get(tenant_of(request), request.path_params["job_id"])
        return Answer(200, _encode(await self._explainer.explain(job)), (JSON_TYPE, NO_STORE))

    def _queue(self, count: LaneCount, reports: Sequence[ModelReport]) -> dict[str, Any]:
        about = [report for report in reports if report.model == count.model]
        pace = together([report.pace for report in about if report.pace is not None])
        queue = {
            "model": count.model,
            "lane": count.lane,
            "waiting": count.waiting,
            "running": count.running,
            "oldest_s": None if count.oldest_at is None else round(max(0.0, self._clock() - count.oldest_at), 3),
            "workers": len({report.worker for report in about if report.status is ModelStatus.READY}),
            "max_queue_length": self._bounds.limit(count.model, count.lane) or None,
            "rate_per_s": None if pace is None else round(pace.finished_per_s.get(count.lane, 0.0), 3),
        }
        return {name: value for name, value in queue.items() if value is not None}


_RANK: Mapping[str, int] = {lane.value: number for number, lane in enumerate(Lane)}
