"""Which settings make the link to the brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.assembly.kafka import link_of
from forebay.core.errors import Misconfigured
from forebay.settings import Settings, load_settings

TOPIC = "forebay.requests.sentiment.low"


def settings(**chosen: str) -> Settings:
    own = {"queue": "kafka://broker-1,broker-2:9093", "blobs": "s3://bucket", **chosen}
    return load_settings(own, {}, Path("/"))


def link(**chosen: str) -> KafkaLink:
    return link_of(settings(**chosen))


def security(**chosen: str) -> Security:
    """Over `sasl_ssl` with a password, unless something else is said."""
    login = {"kafka_security": "sasl_ssl", "kafka_username": "ada", "kafka_password": "of-ada"}
    return link(**{**login, **chosen}).security


def test_nothing_said_is_no_login_and_no_tls() -> None:
    assert link().security == Security()


def test_brokers_prefix_and_client() -> None:
    made = link(kafka_prefix="team.a", worker_id="w-1")
    assert (made.bootstrap, made.prefix, made.client_id) == ("broker-1:9092,broker-2:9093", "team.a", "team.a-w-1")


@pytest.mark.parametrize("protocol", ["plaintext", "ssl"])
def test_without_a_login_there_is_no_mechanism(protocol: str) -> None:
    assert link(kafka_security=protocol, kafka_sasl_mechanism="PLAIN").security == Security(protocol=protocol)


@pytest.mark.parametrize("protocol", ["sasl_plaintext", "sasl_ssl"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_login_with_a_password(protocol: str, mechanism: str) -> None:
    found = security(kafka_security=protocol, kafka_sasl_mechanism=mechanism)
    assert found == Security(protocol=protocol, mechanism=mechanism, username="ada", password="of-ada")


def test_the_mechanism_that_is_taken_unless_another_is_named() -> None:
    assert security().mechanism == "SCRAM-SHA-512"


def test_a_login_with_tokens() -> None:
    found = security(
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_username="",
        kafka_password="",
        kafka_oauth_token_url="https://issuer/token",
        kafka_oauth_client_id="client",
        kafka_oauth_client_secret="hidden",
        kafka_oauth_scope="kafka",
    )
    assert found == Security(
        protocol="sasl_ssl",
        mechanism="OAUTHBEARER",
        oauth_token_url="https://issuer/token",
        oauth_client_id="client",
        oauth_client_secret="hidden",
        oauth_scope="kafka",
    )


def test_the_files_of_tls() -> None:
    found = link(
        kafka_security="ssl",
        kafka_ca_file="ca.pem",
        kafka_certificate_file="own.pem",
        kafka_key_file="own.key",
        kafka_key_password="of-the-key",
    ).security
    assert found == Security(
        protocol="ssl",
        ca_file="ca.pem",
        certificate_file="own.pem",
        key_file="own.key",
        key_password="of-the-key",
    )


def test_a_topics_tenant() -> None:
    names = link(kafka_tenants=f"{TOPIC}=acme,forebay.requests.a.b.high=rival").names
    assert names.tenant_of(TOPIC) == "acme"
    assert names.tenant_of("forebay.requests.a.b.high") == "rival"
    assert names.tenant_of("forebay.requests.sentiment.normal") == "default"


@pytest.mark.parametrize("value", ["acme", f"{TOPIC}=", f"{TOPIC}=a/b", f"{TOPIC}=.a", "=acme", f"{TOPIC}=a=b"])
def test_what_is_no_topic_with_a_tenant_is_refused(value: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        settings(kafka_tenants=value)
    [mistake] = caught.value.mistakes
    assert mistake.startswith("kafka_tenants [FOREBAY_KAFKA_TENANTS, --kafka-tenants]: ")
    assert "expected TOPIC=TENANT" in mistake


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("sentiment.low=acme", "is no requests topic: forebay.requests.<model>.<lane>"),
        ("forebay.events=acme", "is no requests topic"),
        ("other.requests.sentiment.low=acme", "is no requests topic"),
        ("forebay.requests.sentiment=acme", "is no requests topic"),
        ("forebay.requests.sentiment.slow=acme", "has no lane of ours; they are high, normal, low"),
        (f"{TOPIC}=acme,{TOPIC}=rival", "is given to acme and to rival"),
    ],
)
def test_a_topic_that_has_no_jobs_or_two_tenants_is_refused(value: str, why: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        link(kafka_tenants=value)
    [mistake] = caught.value.mistakes
    assert mistake.startswith("kafka_tenants: ")
    assert why in mistake
