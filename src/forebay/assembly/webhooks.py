"""The role that sends webhooks."""

from __future__ import annotations

import random
import secrets
import time

from forebay.assembly.backends import Backends
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics
from forebay.webhooks.destinations import Destinations
from forebay.webhooks.dispatcher import LEASE_S, Dispatcher, DispatcherPlan
from forebay.webhooks.receivers import Receivers
from forebay.webhooks.sender import Sender

DRAIN_SPARE_S = 5.0
"""Of a stop, beyond the longest request: to note what came of it."""


def dispatcher_of(settings: Settings, backends: Backends, metrics: Metrics, sender: Sender) -> Dispatcher:
    assert backends.store is not None
    assert backends.owned is not None
    return Dispatcher(
        DispatcherPlan(
            holder=f"{settings.worker_id}-{secrets.token_hex(4)}",
            lease_s=max(LEASE_S, 4 * settings.webhook_timeout_s),
            drain_s=settings.webhook_timeout_s + DRAIN_SPARE_S,
        ),
        outbox=backends.store,
        events=backends.events,
        destinations=Destinations(
            backends.owned.endpoints,
            metrics,
            disable_after_s=settings.webhook_disable_after_s,
            clock=time.time,
            monotonic=time.monotonic,
            random_bytes=secrets.token_bytes,
        ),
        sender=sender,
        receivers=Receivers(random.random),
        metrics=metrics,
        clock=time.time,
        monotonic=time.monotonic,
        random=random.random,
    )
