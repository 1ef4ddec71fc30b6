"""What becomes of a delivery, try by try."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.delivery import (
    GIVES_UP_AFTER_S,
    TRIES_SHOWN,
    DeliveryEvent,
    DeliveryEventKind,
    DeliveryStatus,
    WebhookDelivery,
    apply_delivery,
    delivery_id,
    made,
)
from forebay.core.webhook import WebhookTarget

NEW = WebhookDelivery(
    tenant="t", job_id="j", id="msg_1", type="job.succeeded", url="https://a", body=b"{}", since=50.0, next_at=50.0
)


def tried(number: int, outcome: DeliveryStatus = DeliveryStatus.PENDING, **what: Any) -> DeliveryEvent:
    next_at = 100.0 + number if outcome is DeliveryStatus.PENDING else None
    return event(DeliveryEventKind.TRIED, number=number, outcome=outcome, next_at=next_at, **what)


def asked(at: float) -> DeliveryEvent:
    return event(DeliveryEventKind.ASKED, at=at)


def event(kind: DeliveryEventKind, **what: Any) -> DeliveryEvent:
    return DeliveryEvent(**{"tenant": "t", "job_id": "j", "delivery_id": "msg_1", "kind": kind, "at": 60.0, **what})


def after(*events: DeliveryEvent, known: WebhookDelivery | None = NEW) -> WebhookDelivery:
    for one in events:
        known = apply_delivery(known, one)
    assert known is not None
    return known


def test_a_try_that_fails_for_now_is_followed_by_another() -> None:
    delivery = after(tried(1, status=500, code="status", message="500", latency_s=0.5))
    assert (delivery.status, delivery.tried, delivery.in_turn, delivery.next_at) == ("pending", 1, 1, 101.0)
    assert [(one.number, one.status, one.code, one.latency_s) for one in delivery.tries] == [(1, 500, "status", 0.5)]
    assert delivery.body == b"{}"


def test_what_is_parked_says_why() -> None:
    delivery = after(tried(1, DeliveryStatus.PARKED, status=410, code="gone"))
    assert (delivery.status, delivery.reason, delivery.next_at) == ("parked", "gone", None)


def test_what_is_asked_for_has_all_its_tries_again() -> None:
    delivery = after(tried(1, DeliveryStatus.PARKED, code="gone"), asked(500.0))
    assert (delivery.status, delivery.tried, delivery.in_turn, delivery.reason) == ("pending", 1, 0, "")
    assert (delivery.since, delivery.next_at, delivery.gives_up_at) == (500.0, 500.0, 500.0 + GIVES_UP_AFTER_S)
    assert after(tried(2, DeliveryStatus.DELIVERED), known=delivery).status == "delivered"


@pytest.mark.parametrize("outcome", [DeliveryStatus.PENDING, DeliveryStatus.PARKED])
def test_once_is_enough_whatever_a_second_dispatcher_met(outcome: DeliveryStatus) -> None:
    delivery = after(tried(1, DeliveryStatus.DELIVERED), tried(2, outcome, code="reset"))
    assert (delivery.status, delivery.tried, delivery.reason, delivery.next_at) == ("delivered", 2, "", None)


def test_the_oldest_tries_are_forgotten() -> None:
    delivery = after(*(tried(number) for number in range(1, TRIES_SHOWN + 11)))
    assert [one.number for one in delivery.tries] == list(range(11, TRIES_SHOWN + 11))
    assert delivery.tried == TRIES_SHOWN + 10


numbers = st.integers(1, 4)
events = st.one_of(
    st.builds(tried, numbers, st.sampled_from(DeliveryStatus), code=st.sampled_from(["", "status", "gone"])),
    st.builds(asked, st.floats(70.0, 900.0)),
)


@given(st.data(), st.lists(events, min_size=1, max_size=6))
def test_repeating_a_try_changes_nothing(data: st.DataObject, facts: list[DeliveryEvent]) -> None:
    """Whoever tried writes it, the projector reads it from the log, and it may stand there twice."""
    tries = [place for place, one in enumerate(facts) if one.kind is DeliveryEventKind.TRIED]
    repeated = list(facts)
    for place in data.draw(st.lists(st.sampled_from(tries), max_size=3)) if tries else []:
        repeated.insert(data.draw(st.integers(repeated.index(facts[place]) + 1, len(repeated))), facts[place])
    assert after(*repeated) == after(*facts)


@given(st.lists(events, max_size=6), st.integers(0, 6))
def test_it_does_not_matter_when_it_is_made(facts: list[DeliveryEvent], place: int) -> None:
    """As in a rebuild, in which tries may be read before the facts that made what was tried."""
    known: WebhookDelivery | None = None
    for one in facts[:place]:
        known = apply_delivery(known, one)
    assert after(*facts[place:], known=made(known, NEW)) == after(*facts)


def test_what_is_made_again_stays_as_it_is() -> None:
    known = after(tried(1))
    assert made(known, NEW) is known


def test_an_id_is_of_one_tenant_job_event_and_receiver() -> None:
    one, two = WebhookTarget(url="https://a.example"), WebhookTarget(endpoint="https://a.example")
    ids = [
        delivery_id(tenant, job, about, target)
        for tenant in ("t", "u")
        for job in ("j", "k")
        for about in ("started", "completed")
        for target in (one, two)
    ]
    assert len(set(ids)) == 16
    assert all(one.startswith("msg_") and "." not in one for one in ids)
    assert ids[0] == delivery_id("t", "j", "started", one)
