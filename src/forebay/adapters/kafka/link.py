"""How our clients reach the brokers: addresses, security, and the settings that all of them share."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from forebay.adapters.kafka.names import Names, mistake_in_name
from forebay.core.errors import Misconfigured
from forebay.core.foreign import ForeignClocks

log = structlog.get_logger(__name__)

PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = (*PASSWORD_MECHANISMS, "OAUTHBEARER")

REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})
TROUBLES = 16
"""Of the newest that long: a client that nobody asks anything is not to gather them for ever."""

COMMON: Mapping[str, Any] = {
    # From 10 s: a broker that comes back is found within half a second, not after the rest of a long pause.
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 500,
    # From 30 s: a host that answers no SYN holds up nothing else for so long.
    "socket.connection.setup.timeout.ms": 5000,
    # Without it a broker whose host went away is missed only when something is sent.
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    # KIP-899, and the default, but all hangs on it: with "none" a client that hears the last answer of a broker that is
    # stopped in order is dead for good. The price: librdkafka 2.16 forgets its back-off whenever the last broker goes
    # away, and tries to connect up to 30 times a second. Where even this fails, Lifeline tells.
    "metadata.recovery.strategy": "rebootstrap",
}


class Security(Struct, frozen=True, kw_only=True):
    """TLS and SASL of the link. Files are PEM.

    `protocol`: one of PROTOCOLS. `mechanism`: one of MECHANISMS, with sasl_* only.
    `username`, `password`: of PLAIN and SCRAM.
    `ca_file`: whom to trust, "" for the system's authorities. A broker's certificate must name the broker, always.
    `certificate_file`, `key_file`, `key_password`: our own, where brokers ask clients for one.
    `oauth_*`: OAUTHBEARER by the client-credentials grant of OpenID Connect (RFC 6749 section 4.4).
    """

    protocol: str = "plaintext"
    mechanism: str = ""
    username: str = ""
    password: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_token_url: str = ""
    oauth_scope: str = ""

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("ssl")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("sasl")

    def __repr__(self) -> str:
        return f"Security(protocol={self.protocol!r}, mechanism={self.mechanism!r})"  # no secret in any log

    def mistakes(self) -> list[str]:
        """What an operator must change, in words; [] if nothing."""
        if self.protocol not in PROTOCOLS:
            return [f"kafka_security: {self.protocol!r} is not one of {', '.join(PROTOCOLS)}"]
        return [*self._sasl_mistakes(), *self._tls_mistakes()]

    def _sasl_mistakes(self) -> list[str]:
        if not self.sasl:
            return [
                f"{_setting(name)}: needs kafka_security sasl_ssl or sasl_plaintext"
                for name in self._given("mechanism", "username")
            ]
        if self.mechanism not in MECHANISMS:
            return [f"kafka_sasl_mechanism: {self.mechanism!r} is not one of {', '.join(MECHANISMS)}"]
        needed = ["username", "password"]
        if self.mechanism == "OAUTHBEARER":
            needed = ["oauth_client_id", "oauth_client_secret", "oauth_token_url"]
        return [f"{_setting(name)}: {self.mechanism} needs it" for name in needed if not getattr(self, name)]

    def _tls_mistakes(self) -> list[str]:
        files = self._given("ca_file", "certificate_file", "key_file")
        if not self.tls:
            return [f"{_setting(name)}: needs kafka_security ssl or sasl_ssl" for name in files]
        mistakes = [
            f"{_setting(name)}: {getattr(self, name)} cannot be read"
            for name in files
            if not os.access(getattr(self, name), os.R_OK)
        ]
        if bool(self.certificate_file) != bool(self.key_file):
            mistakes.append("kafka_certificate_file, kafka_key_file: one needs the other")
        return mistakes

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name)]

    def config(self) -> dict[str, Any]:
        """librdkafka's settings. Raises Misconfigured with all mistakes."""
        if mistakes := self.mistakes():
            raise Misconfigured("the security of the Kafka link is not set up:", mistakes=mistakes)
        config: dict[str, Any] = {"security.protocol": self.protocol}
        if self.tls:
            files = {
                "ssl.ca.location": self.ca_file,
                "ssl.certificate.location": self.certificate_file,
                "ssl.key.location": self.key_file,
                "ssl.key.password": self.key_password,
            }
            config |= {key: value for key, value in files.items() if value}
        if self.sasl:
            config["sasl.mechanism"] = self.mechanism
            config |= self._oauth() if self.mechanism == "OAUTHBEARER" else self._password()
        return config

    def _password(self) -> dict[str, Any]:
        return {"sasl.username": self.username, "sasl.password": self.password}

    def _oauth(self) -> dict[str, Any]:
        config = {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": self.oauth_client_secret,
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
        }
        if self.oauth_scope:
            config["sasl.oauthbearer.scope"] = self.oauth_scope
        return config


def _setting(field: str) -> str:
    """Where an operator has said it."""
    return "kafka_sasl_mechanism" if field == "mechanism" else f"kafka_{field}"


class KafkaLink(Struct, frozen=True, kw_only=True):
    """`bootstrap`: `host:port,...`. `tenants`: see Names. `client_id` is what brokers log and limit us by.

    `clocks`: of jobs that come as records of other producers.
    """

    bootstrap: str
    prefix: str = "forebay"
    tenants: Mapping[str, str] = {}
    security: Security = Security()
    client_id: str = "forebay"
    clocks: ForeignClocks = ForeignClocks()

    @property
    def names(self) -> Names:
        return Names(self.prefix, self.tenants)

    def config(self, **more: Any) -> dict[str, Any]:
        """librdkafka's settings for a producer or a consumer, `more` last: `config(**{"group.id": ...})`.

        Its log lines become events of ours, in the thread that polls the client. Raises Misconfigured.
        """
        if mistake := mistake_in_name(self.prefix):
            raise Misconfigured(f"prefix: {mistake}")
        return {**self._common(), "logger": _Log(self.client_id), **more}

    def admin(self) -> Admin:
        """A client for questions to the cluster. It logs nothing: its answers carry the errors."""
        return Admin({**self._common(), "log_level": 0})

    def _common(self) -> dict[str, Any]:
        return {
            **COMMON,
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            **self.security.config(),
        }


class Admin(AdminClient):
    """Knows why it is not let in, of which librdkafka's answers say only that no broker was there."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._troubles: deque[KafkaError] = deque(maxlen=TROUBLES)
        callbacks: dict[str, Any] = {"error_cb": self._troubles.append}
        super().__init__({**config, **callbacks})

    def refusal(self) -> KafkaError | None:
        """Why brokers and we did not come to terms since the last call: credentials, certificates. None if they did, or
        if nobody was there."""
        self.poll(0)  # callbacks run in here
        troubles = [error for error in self._troubles if error.code() in REFUSALS or "SSL" in error.str()]
        self._troubles.clear()
        return troubles[-1] if troubles else None


class _Log:
    """What confluent-kafka asks of a `logging.Logger`: only `log`."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id

    def log(self, level: int, text: str, *arguments: object) -> None:
        # "%s [%s] %s": facility, client, message. That a broker is away is told by the adapter's own events.
        line = text % arguments if arguments else text
        # librdkafka tells each time that a connection fails, several times a second and client while a broker is away.
        level = logging.DEBUG if "FAIL [" in line or "Connect to" in line else min(level, logging.WARNING)
        log.log(level, "kafka.client_log", client=self._client_id, line=line)
