"""One broker that lets nobody in unasked: TLS, SASL and ACLs, with certificates that are made anew for each.

Who is who: `ADMIN` may do everything, by whichever way it comes in; all others may do nothing until an ACL says so.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType  # not exported
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType  # as above
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion  # as above

from dev.kafka.broker import ANSWER_WITHIN_S, Broker, Quorum
from dev.kafka.install import KafkaUnavailable
from dev.kafka.ports import HOST, free_port

ADMIN = "admin"
MODULES = "org.apache.kafka.common.security"
SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
SCRAM_ITERATIONS = 4096
MAKE_WITHIN_S = 30
KNOWN_WITHIN_S = 30.0
AGAIN_S = 0.02
ANY: Any = None  # which the filter takes, though its types do not say so
EVERY_ACL = AclBindingFilter(
    ResourceType.ANY, ANY, ResourcePatternType.ANY, ANY, ANY, AclOperation.ANY, AclPermissionType.ANY
)
INSTALL_OPENSSL = "there is no openssl: apt-get install openssl (Debian, Ubuntu), brew install openssl (macOS)"


class Certificates:
    """An authority of our own, and what it has signed: `<name>.pem` and `<name>.key`, of one day's life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.pem"

    def make(self) -> None:
        """Raises KafkaUnavailable without openssl."""
        if self.ca_file.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._new_authority("ca")
        self._new_authority("stranger")
        for name, signer in (("broker", "ca"), (ADMIN, "ca"), ("nobody", "stranger")):
            self._sign(name, signer)
        both = self.file("broker", "key").read_text() + self.file("broker").read_text()
        self.file("broker", "both").write_text(both)

    def file(self, name: str, suffix: str = "pem") -> Path:
        return self.folder / f"{name}.{suffix}"

    def _new_authority(self, name: str) -> None:
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        self._openssl("req", "-x509", *_KEY, *files, "-subj", f"/CN={name}", "-days", "1")

    def _sign(self, name: str, signer: str) -> None:
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self.file(name, "ext").write_text(f"subjectAltName=IP:{HOST}\n")
        authority = ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-CAcreateserial"]
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.ext"]
        self._openssl("x509", "-req", *authority, *files, "-days", "1")

    def _openssl(self, *arguments: str) -> None:
        if shutil.which("openssl") is None:
            raise KafkaUnavailable(INSTALL_OPENSSL)
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=MAKE_WITHIN_S)


_KEY: Sequence[str] = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _until(condition: Callable[[], bool], what: str) -> None:
    """The controller confirms what its broker has yet to hear of. Fails after KNOWN_WITHIN_S."""
    deadline = time.monotonic() + KNOWN_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not after {KNOWN_WITHIN_S:g} s: {what}"
        time.sleep(AGAIN_S)


class SecureBroker(Broker):
    """Two doors: `bootstrap` is SASL_SSL (PLAIN, SCRAM and unsigned OAUTHBEARER tokens), `mutual_tls` asks clients for
    a certificate. The controller's own door is on the loopback interface as well, and for the broker itself."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_urlsafe(12)
        self.certificates = Certificates(folder / "certificates")
        port, self.mutual_tls = free_port(), f"{HOST}:{free_port()}"
        quorum = Quorum(1)
        doors = f"CLIENTS://{HOST}:{port},MUTUAL://{self.mutual_tls}"
        super().__init__(
            folder,
            port=port,
            quorum=quorum,
            settings={
                "listeners": f"{doors},{quorum.listener}",
                "advertised.listeners": doors,
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:SASL_SSL,MUTUAL:SSL",
                "inter.broker.listener.name": "CLIENTS",
                "listener.name.mutual.ssl.client.auth": "required",
                **self._tls(),
                **self._sasl(),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # ANONYMOUS is who comes in through the controller's door: this broker.
                "super.users": f"User:{ADMIN};User:broker;User:CN={ADMIN};User:ANONYMOUS",
            },
        )

    @property
    def client(self) -> Mapping[str, str | int | float]:
        """librdkafka's settings for ADMIN."""
        return self._client_of(ADMIN, self.password, "PLAIN")

    def add_user(self, username: str, password: str, mechanism: str = "SCRAM-SHA-512") -> None:
        """Returns once it is let in."""
        admin = AdminClient(dict(self.client))  # kept until the answer is there: its end is the end of its requests
        credentials = ScramCredentialInfo(SCRAM[mechanism], SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(username, credentials, password.encode())
        for done in admin.alter_user_scram_credentials([change]).values():
            done.result(KNOWN_WITHIN_S)
        user = AdminClient({**self._client_of(username, password, mechanism), "log_level": 0})

        def let_in() -> bool:
            with contextlib.suppress(KafkaException):  # not yet
                return bool(user.list_topics(timeout=ANSWER_WITHIN_S).brokers)
            return False

        _until(let_in, f"{username} is let in")

    def allow(self, bindings: Sequence[AclBinding]) -> None:
        """Returns once they hold."""
        admin = AdminClient(dict(self.client))
        for done in admin.create_acls(list(bindings)).values():
            done.result(KNOWN_WITHIN_S)
        _until(lambda: set(bindings) <= set(admin.describe_acls(EVERY_ACL).result(KNOWN_WITHIN_S)), "the ACLs hold")

    def _client_of(self, username: str, password: str, mechanism: str) -> dict[str, str | int | float]:
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "sasl_ssl",
            "ssl.ca.location": str(self.certificates.ca_file),
            "sasl.mechanism": mechanism,
            "sasl.username": username,
            "sasl.password": password,
        }

    def spawn(self) -> None:
        self.certificates.make()
        super().spawn()

    def _is_ready(self) -> bool:
        return self.answers(self.bootstrap, self.node_id, self.client)

    def _tls(self) -> dict[str, str]:
        """Kafka reads PEM itself: key and certificate from one file (KIP-651)."""
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.file("broker", "both")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca_file),
        }

    def _sasl(self) -> dict[str, str]:
        plain = (
            f'username="broker" password="{self.password}" user_broker="{self.password}" user_{ADMIN}="{self.password}"'
        )
        return {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config": f"{MODULES}.plain.PlainLoginModule required {plain};",
            "listener.name.clients.scram-sha-256.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "listener.name.clients.scram-sha-512.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "listener.name.clients.oauthbearer.sasl.jaas.config": (
                f"{MODULES}.oauthbearer.OAuthBearerLoginModule required "
                'unsecuredLoginStringClaim_sub="broker" unsecuredValidatorAllowableClockSkewMs="3000";'
            ),
        }
