"""What the brokers can do, by the one question that any of them answers to anybody: ApiVersions.

A client may ask it before it has authenticated, so no ACL is needed (KIP-511; clients of every vendor's brokers begin
with it). confluent-kafka asks it as well, but tells nobody the answer.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping

from msgspec import Struct

from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.core.errors import Misconfigured, Unavailable

API_VERSIONS = 18
CONSUMER_GROUP_HEARTBEAT = 68  # KIP-848
SHARE_GROUP_HEARTBEAT = 76  # KIP-932
MAX_ANSWER_BYTES = 1_000_000
FINALIZED_FEATURES = 2
"""The tag of that field of the answer."""


class BrokerFacts(Struct, frozen=True, kw_only=True):
    """`features` are those that the cluster has finalized, with their levels (`metadata.version`, `group.version`,
    `share.version` ...); empty with ZooKeeper."""

    apis: frozenset[int]
    features: Mapping[str, int] = {}

    @property
    def consumer_protocol(self) -> bool:
        """Whether groups may use KIP-848 (`group.protocol=consumer`): Kafka 4.0 and later, unless switched off. 3.9
        knows the request as well, but not the feature."""
        return CONSUMER_GROUP_HEARTBEAT in self.apis and self.features.get("group.version", 0) >= 1

    @property
    def share_groups(self) -> bool:
        return SHARE_GROUP_HEARTBEAT in self.apis and self.features.get("share.version", 0) >= 1


def probe(link: KafkaLink, timeout_s: float = 5.0) -> BrokerFacts:
    """Ask the first bootstrap broker that answers, each for `timeout_s`. Blocks; call it in a thread.

    Raises Unavailable when none does, and Misconfigured where waiting would not help: the files of TLS are wrong, or
    no broker is to be trusted.
    """
    tls = _context(link.security)
    failures, distrusted = [], False
    for address in link.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            return _ask(host.strip("[]"), int(port), tls, timeout_s)
        except (OSError, ValueError, IndexError) as exc:
            failures.append(f"{address}: {exc}")
            distrusted = distrusted or isinstance(exc, ssl.SSLCertVerificationError)
    if distrusted:
        raise Misconfigured(
            "no Kafka broker answers whose certificate can be trusted; kafka_ca_file says by whom it must be signed:",
            mistakes=failures,
        )
    raise Unavailable(f"no Kafka broker answers: {'; '.join(failures)}")


def _ask(host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> BrokerFacts:
    with socket.create_connection((host, port), timeout_s) as plain:
        connection = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        with connection:
            connection.sendall(_request())
            length = int.from_bytes(_exactly(connection, 4))
            if length > MAX_ANSWER_BYTES:
                raise ValueError(f"an answer of {length} bytes is not Kafka's")
            return _read(_exactly(connection, length))


def _context(security: Security) -> ssl.SSLContext | None:
    """None without TLS. Raises Misconfigured."""
    security.config()  # tells all files that cannot be read
    if not security.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
    except OSError as exc:
        raise Misconfigured(f"kafka_ca_file: {security.ca_file} is no PEM file of authorities: {exc}") from exc
    if security.certificate_file:
        try:
            # Never None for the password: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(security.certificate_file, security.key_file, security.key_password)
        except OSError as exc:
            files = f"{security.certificate_file} and {security.key_file}"
            raise Misconfigured(
                f"kafka_certificate_file, kafka_key_file, kafka_key_password: {files} are no certificate in PEM and "
                f"its key, or the password is wrong: {exc}"
            ) from exc
    return context


def _request() -> bytes:
    """ApiVersionsRequest, version 3: header version 2, then the client's name and version as compact strings."""
    client = b"forebay"
    header = API_VERSIONS.to_bytes(2) + (3).to_bytes(2) + (0).to_bytes(4) + len(client).to_bytes(2) + client + b"\0"
    compact = bytes([len(client) + 1]) + client
    body = compact + bytes([2]) + b"1" + b"\0"
    return len(header + body).to_bytes(4) + header + body


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        if not (part := connection.recv(count - len(data))):
            raise OSError("the broker closed the connection")
        data += part
    return bytes(data)


def _read(answer: bytes) -> BrokerFacts:
    """ApiVersionsResponse, version 3 (or 0, from a broker that knows no 3: it says which versions it knows)."""
    fields = _Fields(answer)
    fields.take(4)  # the correlation id
    if fields.number(2) != 0:
        return BrokerFacts(apis=frozenset())
    apis = set()
    for _ in range(fields.varint() - 1):
        apis.add(fields.number(2))
        fields.take(4)  # the lowest and the highest version
        fields.tags()
    fields.take(4)  # the throttle time
    features = dict(_features(fields.tags().get(FINALIZED_FEATURES)))
    return BrokerFacts(apis=frozenset(apis), features=features)


def _features(data: bytes | None) -> Iterator[tuple[str, int]]:
    fields = _Fields(data or b"\x01")
    for _ in range(fields.varint() - 1):
        name = fields.take(fields.varint() - 1).decode()
        level = fields.number(2)
        fields.take(2)  # the lowest level
        fields.tags()
        yield name, level


class _Fields:
    """Kafka's flexible encoding (KIP-482): numbers big-endian, lengths as varints plus one, tagged fields last."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise ValueError("the answer is cut off")
        return self._data[self._at - count : self._at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), signed=True)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def tags(self) -> dict[int, bytes]:
        return {self.varint(): self.take(self.varint()) for _ in range(self.varint())}
