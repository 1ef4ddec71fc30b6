"""What the service says of its models and of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.api.conftest import Api

from forebay import __version__
from forebay.adapters.memory import MemoryBlobs, MemoryLog, MemoryQueue
from forebay.core.errors import Unavailable
from forebay.core.model import ModelStatus
from forebay.ports.fleet import ModelReport

SILENT = "no worker has said that it serves this model"


async def report(api: Api, status: ModelStatus, reason: str = "", worker: str = "w1", version: str = "1") -> None:
    await api.fleet.report(ModelReport(worker=worker, model="sentiment", version=version, status=status, reason=reason))


async def state(api: Api, model: str = "sentiment") -> tuple[str, str | None]:
    found = {one["name"]: one for one in (await api.http.get("/v1/models")).json()["models"]}[model]
    return found["status"], found.get("reason")


async def test_models_are_listed_with_what_they_are(api: Api) -> None:
    models = (await api.http.get("/v1/models")).json()["models"]
    assert [model["name"] for model in models] == ["broken", "echo", "handler", "outside", "photo", "sentiment"]
    assert models[1] == {
        "name": "echo",
        "version": "2",
        "versions": ["1", "2"],
        "status": "unavailable",
        "reason": SILENT,
        "task": "json",
        "runtime": "python",
    }


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], ("unavailable", SILENT)),
        ([("w1", ModelStatus.LOADING, "")], ("loading", None)),
        ([("w1", ModelStatus.READY, "")], ("ready", None)),
        ([("w1", ModelStatus.UNAVAILABLE, "model.onnx is missing")], ("unavailable", "model.onnx is missing")),
        ([("w1", ModelStatus.UNAVAILABLE, "broken"), ("w2", ModelStatus.READY, "")], ("ready", None)),
        ([("w1", ModelStatus.UNAVAILABLE, "broken"), ("w2", ModelStatus.LOADING, "")], ("loading", None)),
    ],
)
async def test_a_model_is_as_good_as_its_best_worker_says(api: Api, reports: Any, expected: Any) -> None:
    for worker, status, reason in reports:
        await report(api, status, reason, worker)
    assert await state(api) == expected


async def test_a_report_on_another_version_says_nothing_of_this_one(api: Api) -> None:
    await report(api, ModelStatus.READY, version="7")
    assert await state(api) == ("unavailable", SILENT)


async def test_a_misdescribed_model_is_unavailable_and_says_why(api: Api) -> None:
    reason = "models/broken/model.toml: task: there is no task 'x'"
    assert await state(api, "broken") == ("unavailable", reason)
    answer = await api.http.get("/v1/models/broken")
    assert answer.status_code == 200
    assert answer.json() == {"name": "broken", "versions": [], "status": "unavailable", "reason": reason}


async def test_a_reason_shows_no_folder_of_the_machine(api: Api) -> None:
    assert await state(api, "outside") == (
        "unavailable",
        "outside/1/model.onnx: takes weights from 'weights.bin', outside its folder",
    )


async def test_a_model_is_shown_with_its_schemas(api: Api) -> None:
    answer = await api.http.get("/v1/models/sentiment")
    assert answer.status_code == 200
    model = answer.json()
    assert model["labels"] == ["NEGATIVE", "POSITIVE"]
    assert model["media_types"] == ["text/plain"]
    assert model["batching"] == {"max_batch_size": 16, "max_queue_delay_s": 0.0}
    assert model["limits"]["run_timeout_s"] == 60.0
    assert model["parameters_schema"]["properties"]["top_k"]["minimum"] == 1
    assert model["input_schema"]["examples"]
    assert model["output_schema"]["type"] == "array"
    assert "folder" not in model, "paths of the machine are nobody's business"


async def test_an_unknown_model_is_404_with_the_known_names(api: Api) -> None:
    answer = await api.http.get("/v1/models/nope")
    assert answer.status_code == 404
    assert answer.json()["known"] == ["echo", "photo", "sentiment"]


async def test_livez_asks_nobody(api: Api) -> None:
    answer = await api.http.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readyz_is_200_while_the_queue_accepts_whatever_the_models_are(api: Api) -> None:
    await report(api, ModelStatus.UNAVAILABLE, "model.onnx is missing")
    answer = await api.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert {"name": "sentiment", "version": "1", "status": "unavailable", "reason": "model.onnx is missing"} in (
        answer.json()["models"]
    )


class Away(MemoryQueue):
    def __init__(self, error: Exception) -> None:
        super().__init__(MemoryLog())
        self._error = error

    async def depth(self, channel: Any) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "words", "after"),
    [
        (Unavailable("/srv/forebay.db: the disk is full", retry_after_s=4.2), "the queue is away", "5"),
        (TimeoutError(), "the queue did not answer within 2 s", "1"),
    ],
)
async def test_readyz_is_503_when_the_queue_is_away(make_api: Any, error: Exception, words: str, after: str) -> None:
    api: Api = make_api(queue=Away(error))
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == after
    assert answer.json()["code"] == "not_ready"
    assert words in answer.json()["detail"]
    assert "/srv" not in answer.json()["detail"]
    assert [model["name"] for model in answer.json()["models"]] == [
        "broken",
        "echo",
        "handler",
        "outside",
        "photo",
        "sentiment",
    ]


class Full(MemoryQueue):
    """Answers every question, and takes messages only while there is room."""

    room = False

    def __init__(self) -> None:
        super().__init__(MemoryLog())

    async def publish(self, channel: Any, messages: Any) -> None:
        if not self.room:
            raise Unavailable("/srv/data/forebay.db cannot be written: disk is full (0 free of 9)", retry_after_s=5.0)
        await super().publish(channel, messages)


async def submitted(api: Api, value: str = "good") -> int:
    return (await api.http.post("/v1/jobs", json={"model": "sentiment", "input": value})).status_code


async def ready(api: Api) -> int:
    return (await api.http.get("/readyz")).status_code


async def test_readyz_is_503_after_a_job_that_could_not_be_written_until_one_could(make_api: Any) -> None:
    queue = Full()
    api: Api = make_api(queue=queue)
    assert await ready(api) == 200
    assert await submitted(api) == 503
    answer = await api.http.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.json()["detail"] == "the last job could not be stored; the service's log has the reason"
    queue.room = True
    assert await submitted(api) == 202
    assert await ready(api) == 200


async def test_a_blob_that_could_not_be_written_counts_too(make_api: Any) -> None:
    class FullBlobs(MemoryBlobs):
        async def put(self, tenant: str, job_id: str, data: bytes) -> Any:
            raise Unavailable("no space left")

    api: Api = make_api(blobs=FullBlobs())
    assert await submitted(api, "x" * 5000) == 503
    assert await ready(api) == 503
    assert await submitted(api) == 202
    assert await ready(api) == 200


async def test_where_readyz_keeps_jobs_away_one_may_try_after_a_while(make_api: Any) -> None:
    api: Api = make_api(queue=Full())
    assert await submitted(api) == 503
    api.clock.now += 29.9
    assert await ready(api) == 503
    api.clock.now += 0.2
    assert await ready(api) == 200
    assert await submitted(api) == 503
    assert await ready(api) == 503


async def test_readyz_is_503_once_the_service_stops(make_api: Any) -> None:
    draining = asyncio.Event()
    api: Api = make_api(draining=draining)
    draining.set()
    answer = await api.http.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the service is stopping")
    assert (await api.http.get("/livez")).status_code == 200


async def test_health_says_what_the_service_is_made_of(api: Api) -> None:
    health = (await api.http.get("/health")).json()
    assert health.pop("models")
    assert health == {
        "status": "ok",
        "version": __version__,
        "durability": "memory",
        "queue": "memory",
        "store": "memory",
        "blobs": "memory",
    }


async def test_the_address_alone_leads_to_the_page(api: Api) -> None:
    answer = await api.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_whoever_looks_for_metrics_is_told_where_they_are(api: Api) -> None:
    answer = await api.http.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
    assert "admin port (FOREBAY_ADMIN_PORT" in answer.json()["detail"]
