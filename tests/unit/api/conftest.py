"""The API on the memory adapters and the real tasks, in-process. Every answer is held against the OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from tests.unit.api.promised import Promised

from forebay.adapters.memory import (
    MemoryApiKeys,
    MemoryBlobs,
    MemoryCancellations,
    MemoryEventLog,
    MemoryFleet,
    MemoryLog,
    MemoryQueue,
    MemoryQuotas,
    MemoryStore,
    MemoryWebhookEndpoints,
)
from forebay.api.app import build_app
from forebay.catalog import Catalog
from forebay.core.errors import InvalidRequest
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.fact import Fact
from forebay.core.ids import IdMint
from forebay.core.message import Message
from forebay.core.model import ModelLimits, ModelSpec
from forebay.core.payload import JSON, Payload
from forebay.core.wire import decode_request
from forebay.ports.event_log import LogBatch
from forebay.ports.store import Subscription
from forebay.telemetry.metrics import Metrics

NOW = 1_764_000_000.123456
MAX_BODY_BYTES = 20_000
INLINE_LIMIT_BYTES = 1_000
TENANT = "default"


def spec(name: str, task: str, runtime: str, version: str = "1", **facts: Any) -> ModelSpec:
    return ModelSpec(name=name, version=version, task=task, runtime=runtime, folder=f"/models/{name}", **facts)


CATALOG = Catalog(
    specs={
        "sentiment": {"1": spec("sentiment", "text-classification", "onnx", labels=("NEGATIVE", "POSITIVE"))},
        "photo": {"1": spec("photo", "image-classification", "onnx")},
        "echo": {
            "1": spec("echo", "json", "python"),
            "2": spec("echo", "json", "python", "2", limits=ModelLimits(run_timeout_s=30.0)),
        },
    },
    problems={
        "broken": ("models/broken/model.toml: task: there is no task 'x'",),
        "handler": ("handler/1: untrusted_model: start with FOREBAY_TRUSTED_MODELS=handler",),
        "outside": ("outside/1/model.onnx: takes weights from '/srv/secret/weights.bin', outside its folder",),
    },
    untrusted=frozenset({"handler"}),
)


def check_webhook_url(url: str) -> None:
    if not url.startswith("https://"):
        raise InvalidRequest("an https address is wanted")


class Clock:
    """Time stands still unless a test or a wait moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Waits(MemoryStore):
    """A store whose subscribers do not sleep: each wait takes its whole time on the clock; `during` may act in it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.waited: list[float] = []
        self.during: Callable[[], Any] = lambda: None

    @asynccontextmanager
    async def _subscribe(self, key: tuple[str, str]) -> AsyncIterator[Any]:
        yield _Instant(self, self._clock)


class _Instant(Subscription):
    def __init__(self, store: Waits, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def changed(self, timeout_s: float) -> bool:
        self._store.waited.append(timeout_s)
        self._clock.now += timeout_s
        outcome = self._store.during()
        if asyncio.iscoroutine(outcome):
            await outcome
        return False


class Api:
    """The app with its parts in reach."""

    def __init__(self, queue: MemoryQueue | None = None, blobs: MemoryBlobs | None = None, **changes: Any) -> None:
        self.clock = Clock()
        self.log = MemoryLog()
        self.queue = queue or MemoryQueue(self.log)
        self.store = Waits(self.clock)
        self.blobs = blobs or MemoryBlobs()
        self.fleet = MemoryFleet()
        self.cancellations = MemoryCancellations()
        self.keys = MemoryApiKeys()
        self.quotas = MemoryQuotas()
        self.endpoints = MemoryWebhookEndpoints()
        self.metrics = Metrics()
        self.draining = asyncio.Event()
        self.mint = IdMint([b"0123456789abcdef"], lambda count: bytes(count))
        self.lag_s = 0.0
        self.app = build_app(
            **{
                "catalog": CATALOG,
                "mint": self.mint,
                "queue": self.queue,
                "store": self.store,
                "blobs": self.blobs,
                "fleet": self.fleet,
                "events": MemoryEventLog(self.log),
                "cancellations": self.cancellations,
                "keys": self.keys,
                "quotas": self.quotas,
                "endpoints": self.endpoints,
                "check_webhook_url": check_webhook_url,
                "metrics": self.metrics,
                "draining": self.draining,
                "kinds": {"queue": "memory", "store": "memory", "blobs": "memory"},
                "projector_lag_s": lambda: self.lag_s,
                "max_body_bytes": MAX_BODY_BYTES,
                "inline_limit_bytes": INLINE_LIMIT_BYTES,
                "clock": self.clock,
                "monotonic": self.clock,
                "random_bytes": lambda count: b"\x01" * count,
                **changes,
            }
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(Promised(self.app, self.app.openapi())),
            base_url="http://forebay",
        )
        self._position = ""

    @property
    def published(self) -> list[Message]:
        return self.log.messages

    def accepted(self) -> JobRequest:
        """The only request that was published."""
        (message,) = self.published
        return decode_request(message)

    async def submit(self, model: str = "sentiment", value: Any = "good", **fields: Any) -> str:
        answer = await self.http.post("/v1/jobs", json={"model": model, "input": value, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def project(self, *facts: Fact) -> None:
        end = f"{self._position}+"
        await self.store.project([LogBatch(source="0", start=self._position, end=end, facts=facts)])
        self._position = end

    async def project_published(self) -> None:
        await self.project(*(decode_request(message) for message in self.published))

    async def event(self, job_id: str, kind: EventKind, **facts: Any) -> None:
        at = facts.pop("at", self.clock.now)
        await self.project(JobEvent(tenant=TENANT, job_id=job_id, kind=kind, at=at, **facts))

    async def succeed(self, job_id: str, output: bytes = b'[{"label":"POSITIVE","score":0.9}]', **facts: Any) -> None:
        payload = facts.pop("payload", None) or Payload(media_type=JSON, data=output)
        await self.event(job_id, EventKind.SUCCEEDED, attempt=1, model_version="1", output=payload, **facts)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    yield made
    await made.http.aclose()


@pytest.fixture
async def make_api() -> AsyncIterator[Callable[..., Api]]:
    made: list[Api] = []

    def make(**changes: Any) -> Api:
        made.append(Api(**changes))
        return made[-1]

    yield make
    for one in made:
        await one.http.aclose()
