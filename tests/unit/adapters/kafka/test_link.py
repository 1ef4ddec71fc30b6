"""The settings of the link become librdkafka's, all mistakes are told at once, and no secret is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.core.errors import Misconfigured

NOWHERE = "127.0.0.1:1"
SCRAM = Security(protocol="sasl_ssl", mechanism="SCRAM-SHA-512", username="api", password="hidden-1")
OAUTH = Security(
    protocol="sasl_ssl",
    mechanism="OAUTHBEARER",
    oauth_client_id="api",
    oauth_client_secret="hidden-2",
    oauth_token_url="https://127.0.0.1:1/token",
    oauth_scope="kafka",
)


def link(security: Security) -> KafkaLink:
    return KafkaLink(bootstrap=NOWHERE, security=security)


@pytest.mark.parametrize("security", [Security(), Security(protocol="ssl"), SCRAM, OAUTH])
def test_librdkafka_takes_the_settings(security: Security) -> None:
    one = link(security)
    Producer(one.config())
    Consumer(one.config(**{"group.id": "g"})).close()
    assert isinstance(one.admin(), AdminClient)


def test_a_password_link_is_set_up() -> None:
    config = link(SCRAM).config()
    assert config["security.protocol"] == "sasl_ssl"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("api", "hidden-1")


def test_an_oauth_link_asks_the_token_endpoint_with_its_own_credentials() -> None:
    config = link(OAUTH).config()
    assert {key: value for key, value in config.items() if key.startswith("sasl")} == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "api",
        "sasl.oauthbearer.client.secret": "hidden-2",
        "sasl.oauthbearer.token.endpoint.url": "https://127.0.0.1:1/token",
        "sasl.oauthbearer.scope": "kafka",
    }


def test_the_files_of_tls_reach_the_client(tmp_path: Path) -> None:
    for name in ("ca.pem", "our.pem", "our.key"):
        (tmp_path / name).write_text("")
    security = Security(
        protocol="ssl",
        ca_file=str(tmp_path / "ca.pem"),
        certificate_file=str(tmp_path / "our.pem"),
        key_file=str(tmp_path / "our.key"),
        key_password="hidden-3",
    )
    config = link(security).config()
    assert config["ssl.ca.location"] == security.ca_file
    assert config["ssl.certificate.location"] == security.certificate_file
    assert config["ssl.key.location"] == security.key_file
    assert config["ssl.key.password"] == "hidden-3"


@pytest.mark.parametrize(
    ("fields", "mistakes"),
    [
        ({"protocol": "tls"}, ["kafka_security: 'tls' is not one of"]),
        ({"protocol": "sasl_ssl"}, ["kafka_sasl_mechanism: '' is not one of"]),
        ({"protocol": "sasl_ssl", "mechanism": "GSSAPI"}, ["kafka_sasl_mechanism: 'GSSAPI' is not one of"]),
        (
            {"protocol": "sasl_ssl", "mechanism": "PLAIN"},
            ["kafka_username: PLAIN needs it", "kafka_password: PLAIN needs it"],
        ),
        (
            {"protocol": "sasl_ssl", "mechanism": "OAUTHBEARER", "oauth_client_id": "x"},
            ["kafka_oauth_client_secret: OAUTHBEARER needs it", "kafka_oauth_token_url: OAUTHBEARER needs it"],
        ),
        ({"username": "u"}, ["kafka_username: needs kafka_security sasl_ssl"]),
        ({"ca_file": "/nowhere"}, ["kafka_ca_file: needs kafka_security ssl"]),
        ({"protocol": "ssl", "ca_file": "/nowhere"}, ["kafka_ca_file: /nowhere cannot be read"]),
        ({"protocol": "ssl", "key_file": __file__}, ["kafka_certificate_file, kafka_key_file: one needs the other"]),
    ],
)
def test_every_mistake_is_told(fields: dict[str, Any], mistakes: list[str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        link(Security(**fields)).config()
    assert len(caught.value.mistakes) == len(mistakes)
    for told, expected in zip(caught.value.mistakes, mistakes, strict=True):
        assert expected in told


def test_a_prefix_that_kafka_would_refuse_is_told() -> None:
    with pytest.raises(Misconfigured, match="prefix: 'a b' may hold"):
        KafkaLink(bootstrap=NOWHERE, prefix="a b").config()


@pytest.mark.parametrize("security", [SCRAM, OAUTH])
def test_no_secret_is_printed(security: Security) -> None:
    printed = f"{link(security)!r} {link(security)} {security}"
    assert "hidden" not in printed


def test_what_is_asked_for_wins() -> None:
    assert link(Security()).config(**{"client.id": "mine"})["client.id"] == "mine"
