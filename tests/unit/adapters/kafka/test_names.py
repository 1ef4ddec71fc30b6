"""Names of topics and groups, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.adapters.kafka.attempts import tier_for
from forebay.adapters.kafka.names import RETRY_TIERS_S, Names, mistake_in_name
from forebay.core.errors import InvalidRequest
from forebay.core.message import Channel

NAMES = Names("team.forebay")
MODELS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)  # catalog/names.py
LANES = st.sampled_from(["high", "normal", "low"])


@given(model=MODELS, lane=LANES)
def test_a_channel_is_found_by_its_topic(model: str, lane: str) -> None:
    channel = Channel(model, lane)
    topic = NAMES.requests_topic(channel)
    assert NAMES.channel_of(topic) == channel
    assert NAMES.is_requests_topic(topic)
    assert mistake_in_name(topic) is None


@given(model=MODELS, lane=LANES)
def test_no_group_of_workers_is_another_roles(model: str, lane: str) -> None:
    assert NAMES.worker_group(Channel(model, lane)) not in {NAMES.projector_group, NAMES.scheduler_group}


@pytest.mark.parametrize("topic", ["team.forebay.events", "forebay.requests.m.low", "team.forebay.requests.m"])
def test_other_topics_are_no_channel(topic: str) -> None:
    assert not NAMES.is_requests_topic(topic)
    with pytest.raises(InvalidRequest, match="is no requests topic"):
        NAMES.channel_of(topic)


@pytest.mark.parametrize(
    ("delay_s", "tier"), [(0.1, "5s"), (5, "5s"), (5.1, "30s"), (30, "30s"), (31, "5m"), (300, "5m"), (9000, "5m")]
)
def test_a_delay_waits_in_the_shortest_tier_that_holds_it(delay_s: float, tier: str) -> None:
    assert tier_for(delay_s) == (tier, RETRY_TIERS_S[tier])


def test_a_topic_belongs_to_the_default_tenant_unless_mapped() -> None:
    names = Names(tenants={"forebay.requests.m.low": "acme"})
    assert names.tenant_of("forebay.requests.m.low") == "acme"
    assert names.tenant_of("forebay.requests.m.high") == "default"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", ".", "..", "x" * 250])
def test_names_that_kafka_refuses_are_known(name: str) -> None:
    assert mistake_in_name(name)
