"""The outermost layer, asked as a server would: in ASGI messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.api.conftest import MAX_BODY_BYTES, Api

from forebay.api.edge import HEAD_MAX_BYTES, HEADERS_MOST, URI_MAX_BYTES

Headers = Sequence[tuple[bytes, bytes]]
JSON_TYPE = (b"content-type", b"application/json")


class Asked:
    """What came back, and how much of the body was taken."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.taken = 0

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


async def ask(
    api: Api,
    method: str,
    path: str,
    headers: Headers = (),
    chunks: Sequence[bytes] = (),
    *,
    hang_up: bool = False,
    then_leave: bool = False,
) -> Asked:
    asked = Asked()
    left, told = list(chunks), False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if not left and (hang_up or (then_leave and told)):
            return {"type": "http.disconnect"}
        chunk = left.pop(0) if left else b""
        asked.taken += len(chunk)
        told = not left
        return {"type": "http.request", "body": chunk, "more_body": bool(left) or hang_up}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            asked.status = message["status"]
            asked.headers = dict(message["headers"])
        else:
            asked.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await api.app(scope, receive, send)
    return asked


async def test_a_length_over_the_limit_is_refused_before_a_byte_is_read(api: Api) -> None:
    length = (b"content-length", str(MAX_BODY_BYTES + 1).encode())
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, length], [b"x" * 100])
    assert (asked.status, asked.code, asked.taken) == (413, "payload_too_large", 0)


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(api: Api) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE], [b"x" * 8000] * 100)
    assert (asked.status, asked.code) == (413, "payload_too_large")
    assert asked.taken <= MAX_BODY_BYTES + 8000


async def test_a_body_longer_than_it_said_is_cut_off_at_the_limit(api: Api) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"content-length", b"10")], [b"x" * 8000] * 100)
    assert asked.status == 413
    assert asked.taken <= MAX_BODY_BYTES + 8000


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1e3", b"0x10", "²".encode("latin-1"), b"9" * 10_000])
async def test_a_length_that_is_none_is_refused(api: Api, length: bytes) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"content-length", length)], [b"{}"])
    assert asked.status in (400, 413)
    assert asked.taken == 0


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate, gzip", b"x-unknown"])
async def test_an_encoded_body_is_415(api: Api, encoding: bytes) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"content-encoding", encoding)], [b"\x1f\x8b"])
    assert (asked.status, asked.code, asked.taken) == (415, "unsupported_media_type", 0)
    assert asked.headers[b"accept-encoding"] == b"identity"


async def test_what_the_edge_refuses_is_counted_where_it_was_sent(api: Api) -> None:
    await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"content-length", b"999999999")], [b"{}"])
    await ask(api, "POST", "/inference", [JSON_TYPE, (b"content-encoding", b"gzip")], [b"{}"])
    assert api.counted("forebay_http_requests_total", method="POST", route="/v1/jobs", status="413") == 1
    assert api.counted("forebay_http_requests_total", method="POST", route="/inference", status="415") == 1
    assert api.counted("forebay_jobs_rejected_total", code="payload_too_large") == 1
    assert api.counted("forebay_jobs_rejected_total", code="unsupported_media_type") == 1


async def test_a_body_that_nobody_asked_for_is_not_read(api: Api) -> None:
    asked = await ask(api, "GET", "/livez", [(b"content-length", b"999999999")], [b"{}"])
    assert (asked.status, asked.taken) == (200, 0)


async def test_identity_is_no_encoding(api: Api) -> None:
    body = b'{"model":"echo","input":1}'
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"content-encoding", b"Identity")], [body])
    assert asked.status == 202


async def test_a_caller_who_hangs_up_in_the_middle_submits_nothing(api: Api) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE], [b'{"model":"echo",'], hang_up=True)
    assert asked.status == 0
    assert api.published == []
    labels = {"method": "POST", "route": "/v1/jobs", "status": "499"}
    assert api.counted("forebay_http_requests_total", **labels) == 1


@pytest.mark.parametrize("request_id", ["a", "A-1.b_c~d:e+f/g=", "x" * 128])
async def test_a_callers_request_id_is_kept(api: Api, request_id: str) -> None:
    answer = await api.http.get("/livez", headers={"x-request-id": request_id})
    assert answer.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", [b"", b"x" * 129, b"a b", b"\xff", b"a\nb", b'"><script>'])
async def test_a_harmful_request_id_is_replaced(api: Api, request_id: bytes) -> None:
    asked = await ask(api, "GET", "/livez", [(b"x-request-id", request_id)])
    assert asked.headers[b"x-request-id"] == b"01" * 16


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/docs"])
async def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    asked = await ask(api, "HEAD", path)  # the body is the server's to leave out, since its scope says HEAD
    assert asked.status == 200
    assert asked.headers[b"content-length"] == str(len(asked.body)).encode()


async def test_requests_are_counted_by_the_template_of_their_route(api: Api) -> None:
    job_id = await api.submit()
    await api.http.get(f"/v1/jobs/{job_id}")
    await api.http.get("/v1/jobs/nope")
    await api.http.get("/a/path/that/nobody/made")
    await api.http.request("BREW", "/livez")

    def counted(method: str, route: str, status: str) -> float:
        return api.counted("forebay_http_requests_total", method=method, route=route, status=status)

    assert counted("POST", "/v1/jobs", "202") == 1
    assert counted("GET", "/v1/jobs/{job_id}", "200") == 1
    assert counted("GET", "/v1/jobs/{job_id}", "404") == 1
    assert counted("GET", "unmatched", "404") == 1
    assert counted("other", "/livez", "405") == 1
    seconds = api.counted("forebay_http_request_duration_seconds_count", method="GET", route="/v1/jobs/{job_id}")
    assert seconds == 2


async def test_the_labels_of_the_metrics_are_bounded(api: Api) -> None:
    for number in range(20):
        await api.http.get(f"/v1/jobs/{number}")
        await api.http.get(f"/{number}")
        await api.http.request(f"M{number}", "/livez")
    (metric,) = (one for one in api.metrics.http_requests.collect())
    series = {tuple(sample.labels.values()) for sample in metric.samples}
    assert len(series) == 3


async def test_other_protocols_pass_through(api: Api) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/jobs", "headers": [], "query_string": b"", "root_path": ""}
    await api.app(scope, receive, send)
    assert sent[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    "headers",
    [[(b"x-huge", b"h" * HEAD_MAX_BYTES)], [(b"x", b"")] * (HEADERS_MOST + 1)],
    ids=["a huge one", "a flood"],
)
async def test_more_headers_than_anybody_needs_are_refused(api: Api, headers: Headers) -> None:
    asked = await ask(api, "GET", "/v1/jobs", headers)
    assert (asked.status, asked.code) == (431, "headers_too_large")
    assert b"x-request-id" in asked.headers


async def test_an_address_longer_than_anybody_needs_is_refused(api: Api) -> None:
    asked = await ask(api, "GET", "/v1/jobs/" + "é" * URI_MAX_BYTES)
    assert (asked.status, asked.code) == (414, "uri_too_long")
    assert len(asked.body) < URI_MAX_BYTES


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"chunked, chunked"])
async def test_a_body_that_was_packed_for_the_way_is_refused_unread(api: Api, coding: bytes) -> None:
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"transfer-encoding", coding)], [b"{}"])
    assert (asked.status, asked.code, asked.taken) == (400, "bad_request", 0)
