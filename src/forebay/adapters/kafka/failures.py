"""Errors of the admin client as ours."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException

from forebay.adapters.kafka.link import Admin
from forebay.core.errors import Misconfigured, Unavailable

OPERATORS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_REQUEST,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._INVALID_ARG,
    }
)
"""Waiting does not help with these."""

NO_TOKEN = "Failed to acquire SASL OAUTHBEARER token"
"""librdkafka's words; it has no code for it. Whoever issues tokens is away, and may come back."""


@contextlib.contextmanager
def unavailable(what: str, admin: Admin) -> Iterator[None]:
    """Turns errors of `admin` into Misconfigured where an operator must act, else into Unavailable: `<what>: ...`."""
    try:
        yield
    except KafkaException as exc:
        answered: KafkaError = exc.args[0]
        refusal = admin.refusal()
        error = refusal or answered
        text = f"{what}: {error.str()} ({error.name()})"
        operators = refusal is not None and NO_TOKEN not in refusal.str()
        if operators or answered.code() in OPERATORS:
            raise Misconfigured(text) from exc
        raise Unavailable(text) from exc
    except concurrent.futures.TimeoutError as exc:
        raise Unavailable(f"{what}: Kafka has not answered in time") from exc
