"""Where the consumers of these tests are: on each broker, under each group protocol that it has."""

from __future__ import annotations

from typing import Any

import pytest
from tests.kafka.queues import KafkaPlace

KINDS = [("kafka", "consumer"), ("kafka", "classic"), ("old_kafka", "classic")]


@pytest.fixture(params=KINDS, ids=["-".join(kind) for kind in KINDS])
def place(request: pytest.FixtureRequest) -> KafkaPlace:
    kind, group_protocol = request.param
    broker: Any = request.getfixturevalue(kind)
    return KafkaPlace(broker.bootstrap, group_protocol=group_protocol)
