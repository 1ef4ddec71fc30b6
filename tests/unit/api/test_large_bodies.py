"""A large body holds up nobody else, and so many bytes of them and no more are here at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.api.conftest import Api
from tests.unit.api.test_edge import JSON_TYPE, ask

from forebay.api import job_routes
from forebay.api.bodies import parse_json
from forebay.api.body_budget import LARGE_BODY_BYTES
from forebay.core.event import JobRequest

MIB = 1024 * 1024
LARGE = json.dumps({"model": "echo", "input": "x" * MIB}).encode()
SMALL = b'{"model":"echo","input":1}'


@pytest.fixture
def roomy(make_api: Callable[..., Api]) -> Api:
    """With room for one large body and a half."""
    return make_api(max_body_bytes=len(LARGE), body_budget_bytes=len(LARGE) * 3 // 2)


class Readings:
    """Which threads read bodies, and when they may."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.begun = asyncio.Event()
        self.may_end = threading.Event()
        self._loop = asyncio.get_running_loop()

    def read(self, body: bytes) -> Any:
        self.threads.append(threading.get_ident())
        if threading.get_ident() != threading.main_thread().ident:
            self._loop.call_soon_threadsafe(self.begun.set)
            assert self.may_end.wait(30)
        return parse_json(body)


@pytest.fixture
async def readings(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Readings]:
    made = Readings()
    monkeypatch.setattr(job_routes, "parse_json", made.read)
    yield made
    made.may_end.set()


async def test_small_jobs_are_accepted_while_a_large_body_is_read(roomy: Api, readings: Readings) -> None:
    large = asyncio.create_task(ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [LARGE]))
    await readings.begun.wait()
    assert (await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [SMALL])).status == 202
    assert not large.done()
    readings.may_end.set()
    assert (await large).status == 202
    here = threading.get_ident()
    assert [thread == here for thread in readings.threads] == [False, True]


async def test_large_bodies_are_read_one_after_the_other(make_api: Callable[..., Api], readings: Readings) -> None:
    api = make_api(max_body_bytes=len(LARGE))
    asked = [asyncio.create_task(ask(api, "POST", "/v1/jobs", [JSON_TYPE], [LARGE])) for _ in range(3)]
    await readings.begun.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(readings.threads) == 1
    readings.may_end.set()
    assert [(await one).status for one in asked] == [202, 202, 202]


@pytest.mark.parametrize("length", [(b"content-length", str(len(LARGE)).encode()), (b"x-none", b"")])
async def test_a_large_body_for_which_there_is_no_room_may_come_again(
    roomy: Api, readings: Readings, length: tuple[bytes, bytes]
) -> None:
    large = asyncio.create_task(ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [LARGE]))
    await readings.begun.wait()
    chunks = [LARGE[at : at + 65536] for at in range(0, len(LARGE), 65536)]
    refused = await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE, length], chunks)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert (refused.headers[b"retry-after"], refused.headers[b"connection"]) == (b"1", b"close")
    assert refused.taken <= (0 if length[1] else len(LARGE) // 2 + 65536)
    assert (await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [SMALL])).status == 202
    readings.may_end.set()
    assert (await large).status == 202
    assert (await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE, length], chunks)).status == 202


async def test_room_is_free_again_whatever_became_of_a_body(roomy: Api) -> None:
    for body in (LARGE, b"[" + LARGE[1:], LARGE.replace(b"echo", b"eccho"), LARGE):
        await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [body])
        await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [body], hang_up=True)
    assert (await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [LARGE])).status == 202


async def test_a_caller_who_waits_for_the_result_takes_no_room(roomy: Api) -> None:
    statuses = []

    async def during() -> None:
        roomy.store.during = lambda: None
        statuses.append((await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE], [LARGE])).status)

    roomy.store.during = during
    wait = (b"prefer", b"wait=1")
    assert (await ask(roomy, "POST", "/v1/jobs", [JSON_TYPE, wait], [LARGE])).status == 202
    assert statuses == [202]


@pytest.mark.parametrize("size", [LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1])
async def test_a_body_is_the_same_job_on_either_side_of_the_limit(make_api: Callable[..., Api], size: int) -> None:
    api = make_api(max_body_bytes=MIB, inline_limit_bytes=MIB)
    empty = len(b'{"model_name":"echo","data":""}')
    body = b'{"model_name":"echo","data":"%s"}' % (b"x" * (size - empty))
    assert (await ask(api, "POST", "/inference", [JSON_TYPE], [body])).status == 202
    request: JobRequest = api.accepted()
    assert (request.model, request.input.size_bytes) == ("echo", size - empty)


async def test_a_large_raw_body_is_read_too(make_api: Callable[..., Api]) -> None:
    api = make_api(max_body_bytes=MIB, inline_limit_bytes=MIB)
    body = json.dumps(["x" * (MIB // 2)]).encode()
    assert (await ask(api, "POST", "/v1/models/echo/jobs", [JSON_TYPE], [body])).status == 202
    assert json.loads(api.accepted().input.data or b"") == json.loads(body)
