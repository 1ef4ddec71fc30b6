"""The promises of `ports.webhook_endpoints`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from forebay.core.webhook import WebhookEvent
from forebay.core.webhook_endpoint import ITSELF, HeldSecret, WebhookEndpoint, disabled, rotated
from forebay.ports.webhook_endpoints import WebhookEndpoints

ENDPOINT = WebhookEndpoint(
    id="ep_1",
    tenant="acme",
    url="https://one.example/naïve?a=1",
    events=tuple(WebhookEvent),
    description="é \U0001f600",
    secrets=(HeldSecret(secret="whsec_new"), HeldSecret(secret="whsec_old", until=1_800_000_000.5)),
    created_at=1_764_000_000.25,
)


class WebhookEndpointsPlace(ABC):
    """Where endpoints are kept. `shared`: what is opened twice sees the same."""

    shared: bool

    @abstractmethod
    async def open(self) -> WebhookEndpoints: ...

    @abstractmethod
    async def close(self, endpoints: WebhookEndpoints) -> None: ...


@pytest.mark.anyio
class WebhookEndpointsContract:
    @pytest.fixture
    def place(self) -> WebhookEndpointsPlace:
        raise NotImplementedError("say where they are kept")

    @pytest.fixture
    async def endpoints(self, place: WebhookEndpointsPlace) -> AsyncIterator[WebhookEndpoints]:
        opened = await place.open()
        yield opened
        await place.close(opened)

    async def test_one_comes_back_as_it_was(self, endpoints: WebhookEndpoints) -> None:
        assert await endpoints.get("acme", "ep_1") is None
        assert await endpoints.add(ENDPOINT)
        assert await endpoints.get("acme", "ep_1") == ENDPOINT

    async def test_one_of_an_id_that_is_taken_is_not_added(self, endpoints: WebhookEndpoints) -> None:
        await endpoints.add(ENDPOINT)
        assert not await endpoints.add(replace(ENDPOINT, url="https://other.example"))
        assert await endpoints.get("acme", "ep_1") == ENDPOINT

    async def test_those_of_a_tenant_come_in_the_order_of_their_making(self, endpoints: WebhookEndpoints) -> None:
        others = [
            replace(ENDPOINT, id="ep_3", created_at=ENDPOINT.created_at + 1),
            replace(ENDPOINT, id="ep_0", created_at=ENDPOINT.created_at + 2),
        ]
        for one in (others[1], ENDPOINT, replace(ENDPOINT, tenant="acme2"), replace(ENDPOINT, id=ITSELF), others[0]):
            assert await endpoints.add(one)
        assert list(await endpoints.of_tenant("acme")) == [ENDPOINT, *others]
        assert await endpoints.get("other", "ep_1") is None

    async def test_a_change_is_seen(self, endpoints: WebhookEndpoints) -> None:
        await endpoints.add(ENDPOINT)
        changed = await endpoints.change("acme", "ep_1", lambda one: disabled(one, 5.0, "gone"))
        assert changed == await endpoints.get("acme", "ep_1") == disabled(ENDPOINT, 5.0, "gone")
        assert await endpoints.change("acme", "ep_2", lambda one: one) is None

    async def test_changes_at_once_undo_none(self, place: WebhookEndpointsPlace, endpoints: WebhookEndpoints) -> None:
        other = await place.open() if place.shared else endpoints
        await endpoints.add(replace(ENDPOINT, description=""))

        async def add_letters(of: WebhookEndpoints, letter: str) -> None:
            for _ in range(5):
                await of.change("acme", "ep_1", lambda one: replace(one, description=one.description + letter))

        await asyncio.gather(*(add_letters(of, letter) for of, letter in ((endpoints, "a"), (other, "b"))))
        seen = await endpoints.get("acme", "ep_1")
        assert seen is not None
        assert sorted(seen.description) == ["a"] * 5 + ["b"] * 5
        if other is not endpoints:
            await place.close(other)

    async def test_one_that_is_removed_is_gone(self, endpoints: WebhookEndpoints) -> None:
        await endpoints.add(ENDPOINT)
        assert not await endpoints.remove("other", "ep_1")
        assert await endpoints.remove("acme", "ep_1")
        assert not await endpoints.remove("acme", "ep_1")
        assert await endpoints.get("acme", "ep_1") is None

    async def test_what_a_tenant_keeps_for_itself_is_made_once(self, endpoints: WebhookEndpoints) -> None:
        first = replace(ENDPOINT, id=ITSELF, secrets=(HeldSecret(secret="whsec_1"),))
        assert await endpoints.itself("acme", lambda: first) == first
        assert await endpoints.itself("acme", lambda: rotated(first, "whsec_2", 0.0)) == first

    async def test_it_is_there_for_whoever_opens_them_next(
        self, place: WebhookEndpointsPlace, endpoints: WebhookEndpoints
    ) -> None:
        await endpoints.add(ENDPOINT)
        other = await place.open()
        assert await other.get("acme", "ep_1") == (ENDPOINT if place.shared else None)
        await place.close(other)
