"""The promises of `ports.cancellations`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest

from forebay.ports.cancellations import Cancellations

WITHIN_S = 30.0
JOB, OTHER = ("acme", "job-1"), ("acme", "job-2")


class CancellationsPlace(ABC):
    """Where they are kept. `survives_restart`: what was announced is heard by those that are opened later."""

    survives_restart: bool

    @abstractmethod
    async def open(self) -> Cancellations:
        """Those of a worker."""

    @abstractmethod
    async def close(self, cancellations: Cancellations) -> None: ...


async def hears(cancellations: Cancellations, job: tuple[str, str]) -> None:
    """Return once it has."""
    heard = asyncio.Event()
    with cancellations.heard.told(lambda *told: heard.set() if told == job else None):
        if job not in cancellations.heard:
            async with asyncio.timeout(WITHIN_S):
                await heard.wait()
    assert job in cancellations.heard


@pytest.mark.anyio
class CancellationsContract:
    @pytest.fixture
    def place(self) -> CancellationsPlace:
        raise NotImplementedError("say where they are kept")

    @pytest.fixture
    async def cancellations(self, place: CancellationsPlace) -> AsyncIterator[Cancellations]:
        opened = await place.open()
        yield opened
        await place.close(opened)

    async def test_what_was_announced_is_heard(self, cancellations: Cancellations) -> None:
        await cancellations.announce(*JOB)
        await hears(cancellations, JOB)
        assert OTHER not in cancellations.heard

    async def test_the_same_id_of_another_tenant_is_another_job(self, cancellations: Cancellations) -> None:
        await cancellations.announce(*JOB)
        await hears(cancellations, JOB)
        assert ("else", JOB[1]) not in cancellations.heard

    async def test_whoever_listens_is_told_once(self, cancellations: Cancellations) -> None:
        told: list[tuple[str, str]] = []
        with cancellations.heard.told(lambda *job: told.append(job)):
            for job in (JOB, JOB, OTHER):
                await cancellations.announce(*job)
            await hears(cancellations, OTHER)
        assert told == [JOB, OTHER]

    async def test_whoever_listens_no_more_is_told_nothing(self, cancellations: Cancellations) -> None:
        told: list[tuple[str, str]] = []
        with cancellations.heard.told(lambda *job: told.append(job)):
            pass
        await cancellations.announce(*JOB)
        await hears(cancellations, JOB)
        assert told == []

    async def test_it_is_heard_by_those_that_start_later(self, place: CancellationsPlace) -> None:
        first = await place.open()
        await first.announce(*JOB)
        await first.announce(*OTHER)
        await place.close(first)
        later = await place.open()
        try:
            if place.survives_restart:
                await hears(later, JOB)
                await hears(later, OTHER)
            else:
                assert JOB not in later.heard
        finally:
            await place.close(later)
