"""Names are looked up beside the event loop, so many at once, and nothing that a name server does stays behind."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from forebay.webhooks import lookup
from forebay.webhooks.lookup import SystemLookup


async def test_a_name_has_its_addresses() -> None:
    assert set(await SystemLookup()("localhost")) <= {"127.0.0.1", "::1"}
    assert list(await SystemLookup()("192.0.2.1")) == ["192.0.2.1"]


@pytest.mark.parametrize("name", [".", "a" * 64 + ".test", "a..b", "\ud800"])
async def test_a_name_that_can_be_none_fails_as_one_without_an_address(name: str) -> None:
    """The system's call raises UnicodeError for them, in a thread that nobody watches."""
    with pytest.raises(OSError):  # noqa: PT011 - what it says is the system's
        await SystemLookup()(name)


async def test_a_slow_name_keeps_its_place_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def slowly(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host == "slow.test":
            answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    monkeypatch.setattr(lookup, "THREADS_MOST", 1)
    look_up = SystemLookup()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(look_up("slow.test"), 0.05)
    waiting = asyncio.create_task(look_up("quick.test"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    answer.set()
    assert await waiting == ["192.0.2.1"]


def test_an_answer_after_the_end_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, threads = threading.Event(), []

    def late(*_: object, **__: object) -> list[tuple[object, ...]]:
        threads.append(threading.current_thread())
        answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", late)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(SystemLookup()("late.test"), 0.05)

    asyncio.run(give_up())
    answer.set()
    threads[0].join()  # a failure in it would be a warning, and those are errors
    assert threads[0].daemon
