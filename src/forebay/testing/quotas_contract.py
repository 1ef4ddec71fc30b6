"""The promises of `ports.quotas`, as tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest

from forebay.core.quota import Quota
from forebay.ports.quotas import Quotas

QUOTA = Quota(jobs_per_minute=600, jobs_outstanding=0)


class QuotasPlace(ABC):
    """Where quotas are kept. `shared`: what is opened twice sees the same."""

    shared: bool

    @abstractmethod
    async def open(self) -> Quotas: ...

    @abstractmethod
    async def close(self, quotas: Quotas) -> None: ...


@pytest.mark.anyio
class QuotasContract:
    @pytest.fixture
    def place(self) -> QuotasPlace:
        raise NotImplementedError("say where they are kept")

    @pytest.fixture
    async def quotas(self, place: QuotasPlace) -> AsyncIterator[Quotas]:
        opened = await place.open()
        yield opened
        await place.close(opened)

    async def test_who_has_none_has_no_limits(self, quotas: Quotas) -> None:
        assert await quotas.get("acme") == Quota()
        assert await quotas.all() == {}

    async def test_a_quota_comes_back_as_it_was(self, quotas: Quotas) -> None:
        await quotas.put("acme", QUOTA)
        await quotas.put("a-b", Quota(jobs_per_day=2**40))
        assert await quotas.get("acme") == QUOTA
        assert list((await quotas.all()).items()) == [("a-b", Quota(jobs_per_day=2**40)), ("acme", QUOTA)]

    async def test_a_new_one_takes_the_place_of_the_old(self, quotas: Quotas) -> None:
        await quotas.put("acme", QUOTA)
        await quotas.put("acme", Quota(jobs_per_day=7))
        assert await quotas.get("acme") == Quota(jobs_per_day=7)

    async def test_one_without_limits_is_none(self, quotas: Quotas) -> None:
        await quotas.put("acme", QUOTA)
        await quotas.put("acme", Quota())
        assert await quotas.all() == {}

    async def test_it_is_there_for_whoever_opens_them_next(self, place: QuotasPlace, quotas: Quotas) -> None:
        await quotas.put("acme", QUOTA)
        other = await place.open()
        assert await other.get("acme") == (QUOTA if place.shared else Quota())
        await place.close(other)
