"""All settings. `docs/settings.md` is made from them (`make docs`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from forebay.core.api_key import GOOD_NAME
from forebay.settings.meaning import Meaning, Seconds
from forebay.settings.webhooks import WebhookSettings


class Settings(WebhookSettings):
    """All of them, frozen: the service's own, those of webhooks, and what only Kafka needs. Made by `load_settings`;
    made directly only in tests."""

    @property
    def longest_retain_s(self) -> float:
        """`max_retain_s`, as far as the log reaches."""
        return min(self.max_retain_s, self.kafka_retention_s - self.max_life_s) if self.on_kafka else self.max_retain_s

    kafka_prefix: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=64)],
        Meaning(
            "What the names of all topics and groups begin with. Services with different prefixes share a cluster.",
            "One service per cluster until there are several.",
            "letters, digits, `-` and `_`, in parts joined by dots",
        ),
    ] = "forebay"
    kafka_tenants: Annotated[
        tuple[Annotated[str, Field(pattern=rf"^[A-Za-z0-9._-]+={GOOD_NAME.pattern}$")], ...],
        Meaning(
            "Whose jobs the records of other producers are, by requests topic: `forebay.requests.sentiment.low=acme`. "
            "Those on topics that are not named are of the tenant `default`. The same for every role. What lies on a "
            "topic changes hands with it when the store is rebuilt: name the tenant before the first record.",
            "One tenant, until you say so; a record's own word on it is not believed.",
            "TOPIC=TENANT, several separated by commas",
        ),
    ] = ()
    kafka_partitions: Annotated[
        Annotated[int, Field(ge=1, le=10_000)],
        Meaning(
            "Partitions of each topic of requests that `forebay topics apply` creates: as many workers of one model "
            "can share a lane. More can be had later, never fewer.",
            "Twice the workers that most start with; each costs files and metadata on the brokers.",
            "a whole number, 1 or more",
        ),
    ] = 12
    kafka_replication: Annotated[
        Annotated[int, Field(ge=0, le=9)],
        Meaning(
            "Copies of each record; 0 for three, or as many as there are brokers if those are fewer. From three on, "
            "two must be written before a job is accepted.",
            "The durability class `replicated` where the cluster can give it, and a laptop's broker works too.",
            "a whole number; 0 chooses",
        ),
    ] = 0
    kafka_retention_s: Annotated[
        Seconds,
        Meaning(
            "How long the topics of requests keep a record, those of events somewhat longer: the log that states and "
            "results are rebuilt from.",
            "A week, Kafka's own: a long weekend's outage is well within it.",
            "seconds, more than 0",
        ),
    ] = 7 * 24 * 3600.0
    kafka_group_protocol: Annotated[
        Literal["auto", "consumer", "classic"],
        Meaning(
            "How workers share partitions: `consumer` (KIP-848, brokers from 4.0 on), `classic` (cooperative-sticky), "
            "or `auto`, which asks the broker.",
            "The newer one moves fewer partitions and needs no worker to stop.",
            "auto, consumer or classic",
        ),
    ] = "auto"
    kafka_session_timeout_s: Annotated[
        Seconds,
        Meaning(
            "After how long without a sign of life a worker's partitions go to others, under `classic`; under "
            "`consumer` it is the group's setting on the broker.",
            "Kafka's own; shorter moves work sooner after a crash, and may take it from a machine that was only slow.",
            "seconds, more than 0",
        ),
    ] = 45.0
    kafka_max_poll_interval_s: Annotated[
        Seconds,
        Meaning(
            "After how long without a poll the client gives its partitions up. A thread of its own polls all the time, "
            "whatever the model does: only a process that stands still reaches it. At least 5 s more than "
            "`kafka_drain_s`, during which it does not poll.",
            "Kafka's own.",
            "seconds, more than 0",
        ),
    ] = 300.0
    kafka_drain_s: Annotated[
        Seconds,
        Meaning(
            "When partitions move to another worker: how long this one finishes what runs before it lets them go. What "
            "is unfinished then runs again there.",
            "Long enough for most batches, short enough that the others do not wait.",
            "seconds, more than 0",
        ),
    ] = 5.0
    kafka_security: Annotated[
        Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
        Meaning(
            "How to talk to the brokers: with TLS (`ssl`), with a login (`sasl_plaintext`) or with both (`sasl_ssl`).",
            "A broker on this machine, or in a network of its own, asks for neither.",
            "plaintext, ssl, sasl_plaintext or sasl_ssl",
        ),
    ] = "plaintext"
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        Meaning(
            "How to log in, with `kafka_security` sasl_ssl or sasl_plaintext.",
            "The strongest that needs nothing beside the brokers.",
            "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
        ),
    ] = "SCRAM-SHA-512"
    kafka_username: Annotated[
        str, Meaning("Name to log in with (PLAIN, SCRAM).", "There is no login unless you say so.", "a name")
    ] = ""
    kafka_password: Annotated[
        SecretStr,
        Meaning("Password to log in with (PLAIN, SCRAM).", "There is none.", "a password", secret=True),
    ] = SecretStr("")
    kafka_ca_file: Annotated[
        str,
        Meaning(
            "PEM file with the authorities that sign the brokers' certificates; empty for those of the system.",
            "Managed clusters have certificates that every system knows.",
            "a file's path, relative to where the command is run",
        ),
    ] = ""
    kafka_certificate_file: Annotated[
        str,
        Meaning(
            "PEM file with this client's certificate, where brokers ask for one (mutual TLS).",
            "Most do not.",
            "a file's path, relative to where the command is run",
        ),
    ] = ""
    kafka_key_file: Annotated[
        str,
        Meaning(
            "PEM file with the key of `kafka_certificate_file`.",
            "Most brokers ask for no certificate.",
            "a file's path, relative to where the command is run",
        ),
    ] = ""
    kafka_key_password: Annotated[
        SecretStr,
        Meaning("Password of `kafka_key_file`.", "Most keys have none.", "a password", secret=True),
    ] = SecretStr("")
    kafka_oauth_token_url: Annotated[
        str,
        Meaning(
            "Where OAUTHBEARER gets its tokens (OIDC client credentials).",
            "Only your provider knows.",
            "an https:// URL",
        ),
    ] = ""
    kafka_oauth_client_id: Annotated[
        str, Meaning("Client id for `kafka_oauth_token_url`.", "Only your provider knows.", "a name")
    ] = ""
    kafka_oauth_client_secret: Annotated[
        SecretStr,
        Meaning("Secret of `kafka_oauth_client_id`.", "Only your provider knows.", "a secret", secret=True),
    ] = SecretStr("")
    kafka_oauth_scope: Annotated[
        str, Meaning("Scope to ask for at `kafka_oauth_token_url`.", "Many providers need none.", "a scope, or none")
    ] = ""

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port,host:port`, each with Kafka's usual port where none is given; "" without Kafka."""
        if not self.on_kafka:
            return ""
        hosts = self.queue.removeprefix("kafka://").split(",")
        return ",".join(host if ":" in host else f"{host}:9092" for host in hosts)


def meaning_of(name: str) -> Meaning:
    """What is known of the setting `name`."""
    return next(entry for entry in Settings.model_fields[name].metadata if isinstance(entry, Meaning))
