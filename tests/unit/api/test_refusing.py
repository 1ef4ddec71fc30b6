"""What is refused, with which status, code and place; and that nothing of it reaches the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tests.unit.api.conftest import MAX_BODY_BYTES, Api

from forebay.adapters.memory import MemoryBlobs, MemoryLog, MemoryQueue
from forebay.core.errors import ForebayError, OutcomeUnknown, Unavailable

JSON_HEADERS = {"content-type": "application/json"}


def job(**fields: Any) -> dict[str, Any]:
    return {"model": "sentiment", "input": "good", **fields}


def deep(levels: int) -> bytes:
    return b'{"model":"echo","input":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("body", "pointers", "words"),
    [
        ([], ["#"], "must be a JSON object"),
        ("text", ["#"], "must be a JSON object"),
        ({}, ["#/model", "#/input"], "'model' is required"),
        (job(callback="https://example.com"), ["#/callback"], "'callback' is not a field that this version"),
        (job(keep_s=5, retry={}), ["#/keep_s", "#/retry"], "not a field that this version"),
        (job(**{"a/b~c d": 1}), ["#/a~1b~0c%20d"], "not a field"),
        (job(model=7), ["#/model"], "valid string"),
        (job(lane="urgent"), ["#/lane"], "'high', 'normal' or 'low'"),
        (job(version=1), ["#/version"], "valid string"),
        (job(parameters=[1]), ["#/parameters"], "valid dictionary"),
        (job(metadata="x"), ["#/metadata"], "valid dictionary"),
        (job(metadata={"x": "y" * 17_000}), ["#/metadata"], "more than 16384 bytes"),
        (job(start_within_s=0), ["#/start_within_s"], "greater than 0"),
        (job(start_within_s=1e9), ["#/start_within_s"], "86400 s at most"),
        (job(run_timeout_s=1e9), ["#/run_timeout_s"], "86400 s at most"),
        (job(retain_s=59), ["#/retain_s"], "60 s at least"),
        (job(retain_s=1e9), ["#/retain_s"], "518400 s at most"),
        (job(run_timeout_s=-1), ["#/run_timeout_s"], "greater than 0"),
        (job(run_timeout_s=0.999), ["#/run_timeout_s"], "run_timeout_s may be 1 s at least"),
        (job(run_timeout_s=5e-324), ["#/run_timeout_s"], "run_timeout_s may be 1 s at least"),
        (job(run_timeout_s=61), ["#/run_timeout_s"], "may shorten the model's own limit of 60 s"),
        (job(input=3), ["#/input"], 'the value is not of type "string"; or the value is not of type "object"'),
        (job(input=None), ["#/input"], 'the value is not of type "string"'),
        (job(input={"text": "a", "text_pair": 3}), ["#/input/text_pair"], 'is not of type "string"'),
        (job(input={"text": 1, "x": 2}), ["#/input/text", "#/input"], "and 1 more"),
        (job(model="photo", input=""), ["#/input"], "shorter than 1 character"),
        (job(parameters={"top_k": 0}), ["#/parameters/top_k"], "less than the minimum of 1"),
        (job(parameters={"top_k": True}), ["#/parameters/top_k"], 'is not of type "integer"'),
        (job(parameters={"nope": 1}), ["#/parameters"], "'nope' was unexpected"),
        (job(input=3, parameters={"top_k": "x"}), ["#/input", "#/parameters/top_k"], "and 1 more"),
        (job(model="photo", input="%%%"), ["#/input"], "base64"),
        (job(input=["good", "bad"]), ["#/input"], "one text per job: submit each by itself"),
        (job(model="photo", input=["AAAA"]), ["#/input"], "one image per job: submit each by itself"),
    ],
)
async def test_what_can_never_work_is_422_with_its_place(api: Api, body: Any, pointers: list[str], words: str) -> None:
    answer = await api.http.post("/v1/jobs", json=body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert problem["title"] == "Unprocessable Entity"
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert words in problem["detail"]
    assert api.published == []
    assert api.counted("forebay_jobs_rejected_total", code=problem["code"]) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"model_name": "sentiment"}, "#/data"),
        ({"model_name": "sentiment", "data": 3}, "#/data"),
        ({"model_name": "photo", "data": "%%%"}, "#/data"),
        ({"model_name": "sentiment", "data": "x", "webhook_url": "http://x"}, "#/webhook_url"),
    ],
)
async def test_the_simple_door_names_places_in_its_own_words(api: Api, body: Any, pointer: str) -> None:
    answer = await api.http.post("/inference", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("query", "pointer", "parameter"),
    [
        ("top_k=zero", "#/parameters/top_k", None),
        ("top_k=1.5", "#/parameters/top_k", None),
        ("nope=1", None, "nope"),
        ("wait=5", None, "wait"),
        ("lane=urgent", None, "lane"),
        ("start_within_s=soon", None, "start_within_s"),
        ("run_timeout_s=600", None, "run_timeout_s"),
        ("run_timeout_s=0.999", None, "run_timeout_s"),
        ("retain_s=1", None, "retain_s"),
    ],
)
async def test_a_wrong_query_of_a_raw_body_is_422(
    api: Api, query: str, pointer: str | None, parameter: str | None
) -> None:
    headers = {"content-type": "text/plain"}
    answer = await api.http.post(f"/v1/models/sentiment/jobs?{query}", content=b"good", headers=headers)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error.get("pointer"), error.get("parameter")) == (pointer, parameter)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/jobs", JSON_HEADERS),
        ("/inference", JSON_HEADERS),
        ("/v1/models/echo/jobs", {"content-type": "text/plain"}),
    ],
)
async def test_a_wait_in_the_query_of_a_submission_is_refused_with_the_way_to_say_it(
    api: Api, path: str, headers: dict[str, str]
) -> None:
    body = b'{"model":"echo","input":1}' if path == "/v1/jobs" else b'{"model_name":"echo","data":1}'
    for said, shown in (("5", 5), ("soon", 60)):
        answer = await api.http.post(f"{path}?wait={said}", content=body, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"parameter": "wait", "detail": f"wait: use the header prefer: wait={shown}"}
        ]
    assert api.published == []
    assert api.counted("forebay_jobs_rejected_total", code="invalid_request") == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/nothing/explain"),
        ("POST", "/v1/jobs/nothing/cancel"),
        ("POST", "/v1/jobs/nothing/retry"),
        ("DELETE", "/v1/jobs/nothing"),
        ("GET", "/v1/dead-letters/nothing"),
        ("POST", "/v1/dead-letters/nothing/redrive"),
        ("GET", "/v1/batches/nothing"),
        ("POST", "/v1/batches/nothing/cancel"),
        ("GET", "/v1/queues"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/echo"),
    ],
)
async def test_what_takes_no_query_refuses_any_and_names_no_header_that_it_does_not_take(
    api: Api, method: str, path: str
) -> None:
    for query in ("wait=3", "model=echo"):
        answer = await api.http.request(method, f"{path}?{query}")
        assert answer.status_code == 422
        name = query.partition("=")[0]
        detail = f"{name}: this takes nothing in its query"
        assert answer.json()["errors"] == [{"parameter": name, "detail": detail}]


@pytest.mark.parametrize("path", ["/v1/jobs", "/inference"])
async def test_an_unknown_query_of_a_submission_is_refused(api: Api, path: str) -> None:
    answer = await api.http.post(f"{path}?lane=high", json={})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "lane"


async def test_a_wait_that_makes_no_sense_is_ignored_in_the_header(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json=job(), headers={"prefer": "wait=abc"})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


async def test_an_input_is_not_repeated_in_the_message_about_it(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json=job(input=["secret" * 1000]))
    assert answer.status_code == 422
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"echo","input":1,}',
        b'{"model":"echo","input":NaN}',
        b'{"model":"echo","input":Infinity}',
        b'{"model":"echo","input":1e999}',
        b'{"model":"echo","input":' + b"9" * 5000 + b"}",
        b'{"model":"echo","input":"\xff"}',
        b'{"model":"echo","input":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 9000,
        deep(100),
        deep(9000),
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
    ],
)
async def test_malformed_json_is_400(api: Api, body: bytes) -> None:
    answer = await api.http.post("/v1/jobs", content=body, headers=JSON_HEADERS)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_json"
    assert api.counted("forebay_jobs_rejected_total", code="malformed_json") == 1


@pytest.mark.parametrize(
    ("path", "status", "media_type"),
    [
        ("/v1/jobs", 400, "application/json"),
        ("/inference", 400, "application/json"),
        ("/v1/models/echo/jobs", 422, "application/json"),
        ("/v1/models/photo/jobs", 422, "image/jpeg"),
    ],
)
async def test_an_empty_body_is_said_to_be_empty(api: Api, path: str, status: int, media_type: str) -> None:
    answer = await api.http.post(path, content=b"", headers={"content-type": media_type})
    assert (answer.status_code, answer.json()["detail"]) == (status, "the body is empty")


async def test_of_a_repeated_name_the_last_counts(api: Api) -> None:
    body = b'{"model":"nope","model":"echo","input":1,"input":2}'
    answer = await api.http.post("/v1/jobs", content=body, headers=JSON_HEADERS)
    assert answer.status_code == 202
    assert api.accepted().input.data == b"2"


async def test_brackets_in_a_text_are_not_depth(api: Api) -> None:
    assert await api.submit(value="[" * 900)


async def test_wide_is_not_deep(api: Api) -> None:
    assert await api.submit("echo", [[index] for index in range(500)])


@pytest.mark.parametrize("path", ["/v1/jobs", "/inference"])
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_what_is_not_called_json_is_415(api: Api, path: str, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    answer = await api.http.post(path, content=b'{"model":"echo","input":1}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_media_type"
    assert answer.json()["accepted"] == ["application/json"]
    assert answer.headers["accept-post"] == "application/json"


async def test_a_media_type_that_the_model_does_not_take_is_415_with_those_it_does(api: Api) -> None:
    answer = await api.http.post("/v1/models/photo/jobs", content=b"GIF89a", headers={"content-type": "image/gif"})
    assert answer.status_code == 415
    assert "image/png" in answer.json()["accepted"]


FORM = "application/x-www-form-urlencoded"
FORM_DATA = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("path", "media_type", "advice"),
    [
        ("/v1/jobs", FORM, "add -H 'content-type: application/json'"),
        ("/v1/jobs", "", "the body has no content-type; add -H 'content-type: application/json'"),
        ("/v1/jobs", FORM_DATA, "the input itself to POST /v1/models/MODEL/jobs: --data-binary @FILE"),
        ("/inference", "image/jpeg", "the input itself to POST /v1/models/MODEL/jobs: --data-binary @FILE"),
        ("/v1/models/sentiment/jobs", FORM, "add -H 'content-type: text/plain'"),
        ("/v1/models/photo/jobs", FORM, "add -H 'content-type: image/jpeg'"),
        ("/v1/models/echo/jobs", FORM, "add -H 'content-type: application/json'"),
        ("/v1/models/sentiment/jobs", "", "the body has no content-type"),
        ("/v1/models/sentiment/jobs", "", "add -H 'content-type: text/plain'"),
        ("/v1/models/photo/jobs", FORM_DATA, "send the file itself: --data-binary @FILE -H 'content-type: image/jpeg'"),
        ("/v1/models/sentiment/jobs", "application/json", "JSON goes to POST /v1/jobs"),
        ("/v1/models/photo/jobs", "application/json; charset=utf-8", "JSON goes to POST /v1/jobs"),
        ("/v1/models/photo/jobs", "image/gif", "the model takes image/jpeg, image/png, image/webp"),
    ],
)
async def test_a_415_says_what_to_type(api: Api, path: str, media_type: str, advice: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    answer = await api.http.post(path, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert advice in answer.json()["detail"]


async def test_bytes_that_are_not_of_their_type_are_422(api: Api) -> None:
    answer = await api.http.post("/v1/models/photo/jobs", content=b"GIF89a", headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "bad_image"
    assert answer.json()["errors"][0]["pointer"] == "#"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", {"model": "nope", "input": 1}),
        ("/inference", {"model_name": "nope", "data": 1}),
        ("/v1/models/nope/jobs", {}),
    ],
)
async def test_an_unknown_model_is_404_with_the_known_names(api: Api, path: str, body: Any) -> None:
    answer = await api.http.post(path, json=body)
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_model"
    assert answer.json()["known"] == ["echo", "photo", "sentiment"]


async def test_an_unknown_version_is_404_with_the_known_ones(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, "version": "9"})
    assert answer.status_code == 404
    assert answer.json()["known"] == ["1", "2"]


async def test_a_misdescribed_model_takes_no_jobs(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "broken", "input": 1})
    assert answer.status_code == 404
    assert answer.json()["code"] == "model_misdescribed"
    assert "there is no task 'x'; see GET /v1/models/broken" in answer.json()["detail"]


async def test_an_untrusted_model_takes_no_jobs_and_says_what_to_do(api: Api) -> None:
    answer = await api.http.post("/v1/models/handler/jobs", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "model_untrusted"
    assert answer.json()["detail"].endswith("FOREBAY_TRUSTED_MODELS=handler; see GET /v1/models/handler")


async def test_a_refusal_shows_no_folder_of_the_machine(api: Api) -> None:
    detail = (await api.http.post("/inference", json={"model_name": "outside", "data": 1})).json()["detail"]
    assert "/srv" not in detail
    assert "weights from 'weights.bin', outside" in detail


class Failing(MemoryQueue):
    """Every publish raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MemoryLog())
        self._error = error

    async def publish(self, channel: Any, messages: Any) -> None:
        raise self._error


async def test_a_queue_that_is_away_is_503_and_why_is_for_the_log(make_api: Any, logged: list[Any]) -> None:
    secret = "/srv/data/forebay.db cannot be written: disk is full (7 free of 99)"
    api: Api = make_api(queue=Failing(Unavailable(secret, retry_after_s=2.5)))
    answer = await api.http.post("/v1/jobs", json=job())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["code"] == "unavailable"
    assert answer.json()["retry_after_s"] == 2.5
    assert "job_id" not in answer.json()
    assert "/srv" not in answer.json()["detail"]
    assert "99" not in answer.json()["detail"]
    (entry,) = logged
    assert (entry["event"], entry["error"]) == ("request.unavailable", secret)
    assert entry["request_id"] == answer.json()["request_id"]


async def test_an_unknown_outcome_is_503_with_the_job_that_may_exist(make_api: Any) -> None:
    api: Api = make_api(queue=Failing(OutcomeUnknown("the disk did not answer", job_id="the-job")))
    answer = await api.http.post("/v1/jobs", json=job())
    assert answer.status_code == 503
    assert answer.json()["code"] == "outcome_unknown"
    assert answer.json()["job_id"] == "the-job"
    assert answer.headers["retry-after"] == "1"


async def test_a_blob_store_that_is_away_is_503_and_nothing_is_published(make_api: Any) -> None:
    class Full(MemoryBlobs):
        async def put(self, tenant: str, job_id: str, data: bytes) -> Any:
            raise Unavailable("no space left")

    api: Api = make_api(blobs=Full())
    answer = await api.http.post("/v1/jobs", json=job(input="x" * 5000))
    assert answer.status_code == 503
    assert api.published == []


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("secret"), "internal"), (ForebayError("secret", code="odd"), "odd")]
)
async def test_a_fault_of_ours_is_500_without_its_text(
    make_api: Any, logged: list[Any], error: Exception, code: str
) -> None:
    api: Api = make_api(queue=Failing(error))
    answer = await api.http.post("/v1/jobs", json=job(), headers={"x-request-id": "r-1"})
    assert answer.status_code == 500
    assert answer.json()["code"] == code
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "r-1"
    assert "secret" not in answer.text
    assert logged[-1]["log_level"] == "error"


async def test_a_crash_is_logged_with_its_traceback(make_api: Any, logged: list[Any]) -> None:
    api: Api = make_api(queue=Failing(RuntimeError("why")))
    await api.http.post("/v1/jobs", json=job())
    (entry,) = logged
    assert entry["event"] == "request.crashed"
    assert entry["exc_info"] is True
    assert entry["request_id"]


async def test_a_body_over_the_limit_is_413_with_the_limit(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json=job(input="x" * MAX_BODY_BYTES))
    assert answer.status_code == 413
    assert answer.json()["code"] == "payload_too_large"
    assert answer.json()["limit_bytes"] == MAX_BODY_BYTES
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "route_not_found"),
        ("GET", "/v1/jobs/", 404, "route_not_found"),
        ("GET", "/v1/jobs/a/b", 404, "route_not_found"),
        ("GET", "/%00/%ff", 404, "route_not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/inference", 405, "method_not_allowed"),
        ("BREW", "/livez", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/jobs", 405, "method_not_allowed"),
    ],
)
async def test_what_the_router_refuses_is_a_problem_too(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = await api.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


async def test_a_405_names_every_method_of_the_path(api: Api) -> None:
    answer = await api.http.delete("/v1/jobs")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_allow_names_what_the_path_itself_takes_not_what_a_parameter_would(api: Api) -> None:
    answer = await api.http.patch("/v1/dead-letters/redrive")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = await api.http.patch("/v1/dead-letters/some-id")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("value", [True, "5", [5]])
@pytest.mark.parametrize("name", ["start_within_s", "run_timeout_s", "retain_s", "max_queue_length"])
async def test_what_only_looks_like_a_number_is_none(api: Api, name: str, value: Any) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, name: value})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{name}")


async def test_a_whole_number_may_be_written_with_a_point(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, "max_queue_length": 5.0})
    assert answer.status_code == 202, answer.text
