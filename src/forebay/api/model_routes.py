"""Routes about models and about the service itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, Answer
from forebay.api.probe import QueueProbe
from forebay.api.problems import problem, retry_after, without_folders
from forebay.api.queries import refuse_query
from forebay.api.submission import ModelCatalog
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import Fleet, ModelReport
from forebay.ports.task import Task

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode
_OK = _encode({"status": "ok"})


class ModelRoutes:
    def __init__(
        self,
        *,
        catalog: ModelCatalog,
        task_of: Callable[[str], Task],
        fleet: Fleet,
        probe: QueueProbe,
        closed_s: Callable[[], float],
        draining: asyncio.Event,
        about: Mapping[str, str],
    ) -> None:
        self._catalog = catalog
        self._task_of = task_of
        self._fleet = fleet
        self._probe = probe
        self._closed_s = closed_s
        self._draining = draining
        self._about = about

    async def list_models(self, request: Request) -> Answer:
        """A model is as good as the best of its workers says; `reason` tells why it is not ready."""
        refuse_query(request)
        reports = await self._fleet.reports()
        return _json({"models": [self._summary(name, reports) for name in self._names()]})

    async def get_model(self, request: Request) -> Answer:
        """What it takes, what it gives, its limits: of its default version."""
        refuse_query(request)
        name = request.path_params["model"]
        reports = await self._fleet.reports()
        if name not in self._catalog.specs and name in self._catalog.problems:
            return _json(self._summary(name, reports))
        spec = self._catalog.resolve(name)
        return _json({**self._summary(name, reports), **self._detail(spec)})

    async def livez(self, request: Request) -> Answer:
        """Asks nobody else: fails only if the process itself does."""
        return Answer(200, _OK, (JSON_TYPE, NO_STORE))

    async def readyz(self, request: Request) -> Answer:
        """200 if a job could be accepted now, whether or not its model is loaded: it would wait. 503 also for a while
        after a job that could not be written."""
        models = await self._states()
        reason, wait_s = await self._reason_to_refuse()
        if not reason:
            return _json({"status": "ready", "models": models})
        return problem(
            request.scope, 503, "not_ready", reason, headers=[retry_after(wait_s)], retry_after_s=wait_s, models=models
        )

    async def health(self, request: Request) -> Answer:
        """`durability` says what an accepted job survives: `replicated` the loss of a broker's host, `flushed` a power
        cut, `process` the death of any process."""
        return _json({"status": "ok", **self._about, "models": await self._states()})

    async def _reason_to_refuse(self) -> tuple[str, float]:
        """Why no job can be accepted now, "" if they can, and seconds after which to ask again."""
        if self._draining.is_set():
            return "the service is stopping", 1.0
        away, wait_s = await self._probe.away()
        if away:
            return away, wait_s
        closed_s = self._closed_s()
        return (
            ("the last job could not be stored; the service's log has the reason", closed_s) if closed_s else ("", 0.0)
        )

    async def _states(self) -> list[dict[str, Any]]:
        reports = await self._fleet.reports()
        wanted = ("name", "version", "status", "reason")
        summaries = [self._summary(name, reports) for name in self._names()]
        return [{key: summary[key] for key in wanted if key in summary} for summary in summaries]

    def _names(self) -> list[str]:
        return sorted({*self._catalog.specs, *self._catalog.problems})

    def _summary(self, name: str, reports: Sequence[ModelReport]) -> dict[str, Any]:
        mistakes = "; ".join(without_folders(problem) for problem in self._catalog.problems.get(name, ()))
        if name not in self._catalog.specs:
            return {"name": name, "versions": [], "status": ModelStatus.UNAVAILABLE, "reason": mistakes}
        spec = self._catalog.resolve(name)
        status, reason = standing(spec, reports)
        summary = {
            "name": name,
            "version": spec.version,
            "versions": list(self._catalog.specs[name]),
            "status": status,
            "reason": "; ".join(part for part in (reason, mistakes) if part),
            "task": spec.task,
            "runtime": spec.runtime,
            "description": spec.description,
        }
        return {key: value for key, value in summary.items() if value != ""}

    def _detail(self, spec: ModelSpec) -> dict[str, Any]:
        task = self._task_of(spec.task)
        limits = {key: value for key, value in msgspec.structs.asdict(spec.limits).items() if value is not None}
        return {
            "replicas": spec.replicas,
            "batching": msgspec.structs.asdict(spec.batching),
            "limits": limits,
            "retry": msgspec.structs.asdict(spec.retry),
            "labels": spec.labels,
            "media_types": list(task.media_types(spec)),
            "input_schema": task.input_schema(spec),
            "output_schema": task.output_schema(spec),
            "parameters_schema": task.parameters_schema(spec),
        }


def standing(spec: ModelSpec, reports: Sequence[ModelReport]) -> tuple[ModelStatus, str]:
    """What the workers together say of a model: as good as the best of them, with a reason when that is not `ready`."""
    about = [report for report in reports if report.model == spec.name and report.version == spec.version]
    for status in (ModelStatus.READY, ModelStatus.LOADING, ModelStatus.UNAVAILABLE):
        for report in about:
            if report.status is status:
                return status, "" if status is ModelStatus.READY else report.reason
    return ModelStatus.UNAVAILABLE, "no worker has said that it serves this model"


def _json(value: Any) -> Answer:
    return Answer(200, _encode(value), (JSON_TYPE, NO_STORE))
