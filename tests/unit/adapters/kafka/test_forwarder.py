"""When what waits in a tier leaves it."""

from __future__ import annotations

from typing import cast

import pytest
from tests.unit.adapters.kafka.test_hand import NO_RECORD

from forebay.adapters.kafka.attempts import delay_headers
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.forwarder import JITTER, Forwarder
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.tracker import Mark
from forebay.core.message import Channel, Message

NOW, LOOP_NOW, TIER_S = 1_000.0, 50.0, 30.0


def leaves_in(due_in_s: float, chance: float) -> float:
    """Seconds until a message leaves that is due then."""
    link = KafkaLink(bootstrap="127.0.0.1:1")
    forwarder = Forwarder(
        link,
        ConsumerPlan(),
        cast("Publisher", None),
        cast("DeadLetters", None),
        tiers={"30s": TIER_S},
        publish_wait_s=1.0,
        clock=lambda: NOW,
        random=lambda: chance,
    )
    headers = delay_headers(Mark(), Channel("m", "normal"), NOW + due_in_s)
    message = Message(tenant="t", job_id="1", headers=headers, value=b"")
    place = (link.names.retry_prefix + "30s", 0)
    forwarder._schedule(Entry(place=place, offset=0, record=NO_RECORD, message=message), LOOP_NOW)
    return forwarder._leaving[0][0] - LOOP_NOW


@pytest.mark.parametrize(
    ("due_in_s", "chance", "leaves_in_s"),
    [
        (10.0, 0.0, 10.0),
        (10.0, 0.5, 10.0 + 0.5 * JITTER * TIER_S),
        (100.0, 0.0, TIER_S),
        (-1.0, 0.5, 0.5 * JITTER * TIER_S - 1.0),
        (-3600.0, 1.0, 0.0),
    ],
)
def test_chance_is_added_to_when_it_is_due_and_what_is_overdue_leaves_at_once(
    due_in_s: float, chance: float, leaves_in_s: float
) -> None:
    assert leaves_in(due_in_s, chance) == pytest.approx(leaves_in_s)
