"""Errors of the admin client as ours."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException

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


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Turns errors into Misconfigured where an operator must act, else into Unavailable: `<what>: ...`."""
    try:
        yield
    except KafkaException as exc:
        error: KafkaError = exc.args[0]
        text = f"{what}: {error.str()} ({error.name()})"
        if error.code() in OPERATORS:
            raise Misconfigured(text) from exc
        raise Unavailable(text) from exc
    except concurrent.futures.TimeoutError as exc:
        raise Unavailable(f"{what}: Kafka has not answered in time") from exc
