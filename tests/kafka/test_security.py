"""TLS and SASL on a real broker: each way in lets producer, consumers and admin in, and whoever is not is told why."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from tests.kafka.client import WITHIN_S
from tests.kafka.token_endpoint import token_endpoint

from dev.kafka.ports import free_port
from dev.kafka.secure import ADMIN, SecureBroker
from forebay.adapters.kafka.event_log import KafkaEventLog
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.layout import TopicWishes
from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.adapters.kafka.probe import probe
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.topics import Topics
from forebay.core.errors import Misconfigured, Unavailable
from forebay.core.event import EventKind
from forebay.ports.event_log import START
from forebay.testing.samples import event

pytestmark = pytest.mark.anyio

FEW = TopicWishes(requests_partitions=1, retry_partitions=1, dlq_partitions=1)
WAYS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"]


def link(broker: SecureBroker, **security: Any) -> KafkaLink:
    """To the door with SASL_SSL, unless something else is said."""
    door = {"protocol": "sasl_ssl", "ca_file": str(broker.certificates.ca_file)}
    return KafkaLink(
        bootstrap=broker.bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}", security=Security(**{**door, **security})
    )


def with_password(broker: SecureBroker, mechanism: str = "PLAIN", **more: Any) -> KafkaLink:
    return link(broker, **{"mechanism": mechanism, "username": ADMIN, "password": broker.password, **more})


def with_certificate(broker: SecureBroker, name: str) -> KafkaLink:
    files = broker.certificates
    security = Security(
        protocol="ssl",
        ca_file=str(files.ca_file),
        certificate_file=str(files.file(name)),
        key_file=str(files.file(name, "key")),
    )
    return KafkaLink(bootstrap=broker.mutual_tls, prefix=f"t{uuid.uuid4().hex[:12]}", security=security)


def with_tokens(broker: SecureBroker, url: str) -> KafkaLink:
    return link(
        broker,
        mechanism="OAUTHBEARER",
        oauth_client_id="forebay-api",
        oauth_client_secret="hidden",
        oauth_token_url=url,
        oauth_scope="kafka",
    )


@contextlib.contextmanager
def way_in(broker: SecureBroker, way: str) -> Iterator[KafkaLink]:
    if way == "certificate":
        yield with_certificate(broker, ADMIN)
    elif way == "OAUTHBEARER":
        with token_endpoint(ADMIN) as endpoint:
            yield with_tokens(broker, endpoint.url)
    else:
        if way.startswith("SCRAM"):
            broker.add_user(ADMIN, broker.password, way)
        yield with_password(broker, way)


@contextlib.asynccontextmanager
async def publisher_of(one: KafkaLink) -> AsyncIterator[Publisher]:
    publisher = Publisher(one, warm_up_s=0.0)
    await publisher.open(WITHIN_S)
    try:
        yield publisher
    finally:
        await publisher.close(0.1)


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_in_lets_all_our_clients_in(secure_kafka: SecureBroker, way: str) -> None:
    with way_in(secure_kafka, way) as one:
        assert (await asyncio.to_thread(probe, one, WITHIN_S)).consumer_protocol
        await asyncio.to_thread(Topics(one, ["sample"], FEW, timeout_s=WITHIN_S).apply)
        async with publisher_of(one) as publisher:
            log = KafkaEventLog(one, publisher, FollowerPlan(group_protocol="classic"))
            await log.open()
            try:
                await log.publish([event(1, EventKind.STARTED)])
                async with asyncio.timeout(WITHIN_S):
                    while not (batches := await log.read(dict.fromkeys(log.sources(), START), 10, 1.0)):
                        pass
                facts = [replace(fact, logged_at=0.0) for batch in batches for fact in batch.facts]
                assert facts == [event(1, EventKind.STARTED)]
                assert sum((await log.behind({})).values()) == 1
            finally:
                await log.close()


def test_the_token_endpoint_is_asked_with_our_credentials(secure_kafka: SecureBroker) -> None:
    with token_endpoint(ADMIN) as endpoint:
        Topics(with_tokens(secure_kafka, endpoint.url), ["sample"], FEW, timeout_s=WITHIN_S).plan()
    authorization, form = endpoint.asked[0]
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"forebay-api:hidden"
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}


def test_a_wrong_password_is_told(secure_kafka: SecureBroker) -> None:
    one = with_password(secure_kafka, password="wrong")
    with pytest.raises(Misconfigured, match="Invalid username or password") as caught:
        Topics(one, ["sample"], FEW, timeout_s=2.0).check()
    assert "wrong" not in str(caught.value)


def test_an_unknown_user_is_told(secure_kafka: SecureBroker) -> None:
    one = with_password(secure_kafka, "SCRAM-SHA-512", username="stranger")
    with pytest.raises(Misconfigured, match="invalid credentials"):
        Topics(one, ["sample"], FEW, timeout_s=2.0).check()


def test_a_broker_that_we_have_no_reason_to_trust_is_told(secure_kafka: SecureBroker) -> None:
    one = with_password(secure_kafka, ca_file=str(secure_kafka.certificates.file("stranger")))
    with pytest.raises(Misconfigured, match="certificate"):
        Topics(one, ["sample"], FEW, timeout_s=2.0).check()
    with pytest.raises(Misconfigured, match=r"kafka_ca_file(.|\n)*CERTIFICATE_VERIFY_FAILED"):
        probe(one, 2.0)


def test_a_broker_of_another_name_is_told(secure_kafka: SecureBroker) -> None:
    port = secure_kafka.bootstrap.rpartition(":")[2]
    one = KafkaLink(bootstrap=f"localhost:{port}", security=with_password(secure_kafka).security)
    with pytest.raises(Misconfigured, match="certificate"):
        Topics(one, ["sample"], FEW, timeout_s=2.0).check()


def test_a_certificate_that_brokers_do_not_trust_is_told(secure_kafka: SecureBroker) -> None:
    with pytest.raises(Misconfigured, match=r"bad certificate|certificate unknown"):
        Topics(with_certificate(secure_kafka, "nobody"), ["sample"], FEW, timeout_s=2.0).check()


def test_a_token_endpoint_that_is_away_may_come_back(secure_kafka: SecureBroker) -> None:
    one = with_tokens(secure_kafka, f"http://127.0.0.1:{free_port()}/token")
    with pytest.raises(Unavailable, match="token"):
        Topics(one, ["sample"], FEW, timeout_s=2.0).check()


async def test_a_publisher_that_is_not_let_in_logs_why_and_answers_in_time(secure_kafka: SecureBroker) -> None:
    with structlog.testing.capture_logs() as logs:
        async with publisher_of(with_password(secure_kafka, password="wrong")) as publisher:
            assert not publisher.up
    [away] = [line for line in logs if line["event"] == "kafka.away"]
    assert "Invalid username or password" in away["reason"]
