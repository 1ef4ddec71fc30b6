"""The clocks of jobs: what the settings let them be, and the role that keeps them."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping

from forebay.assembly.backends import Backends
from forebay.catalog import Catalog
from forebay.core.clocks import ClockLimits
from forebay.core.errors import Misconfigured
from forebay.core.foreign import ForeignClocks
from forebay.core.model import ModelLimits
from forebay.scheduler import Scheduler, Timekeeper, TimekeeperPlan
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics


def clock_limits(settings: Settings) -> ClockLimits:
    return ClockLimits(
        max_life_s=settings.max_life_s,
        max_start_within_s=settings.max_start_within_s,
        max_run_timeout_s=settings.max_run_timeout_s,
        retain_s=settings.retain_s,
        min_retain_s=settings.min_retain_s,
        max_retain_s=settings.longest_retain_s,
    )


def foreign_clocks(settings: Settings, catalog: Catalog) -> ForeignClocks:
    return ForeignClocks(service=clock_limits(settings), models=_limits(catalog))


def check_store(settings: Settings, roles: Collection[str]) -> None:
    """Raises Misconfigured for a role with a store of its own, in which it would never find anything."""
    if not settings.on_kafka or settings.store != "sqlite://" or "projector" in roles:
        return
    for role, wanted in (("scheduler", "jobs whose time is over"), ("webhooks", "what is to be sent")):
        if role in roles:
            raise Misconfigured(
                f"the store sqlite:// is of one process, and the role {role} looks there for {wanted}: run it with the "
                "projector, such as `forebay run api projector scheduler webhooks`, or set store to postgresql://..."
            )


def check_models(settings: Settings, catalog: Catalog) -> None:
    """Raises Misconfigured for models that would keep their jobs for longer than the settings allow."""
    too_long = [
        f"{name}/model.toml: limits.retain_s: {limits.retain_s:g} s"
        for name, limits in _limits(catalog).items()
        if limits.retain_s is not None and limits.retain_s > settings.longest_retain_s
    ]
    if too_long:
        limit = f"no job is kept for more than {settings.longest_retain_s:g} s (max_retain_s; kafka_retention_s)"
        raise Misconfigured(limit, mistakes=too_long)


def scheduler_of(settings: Settings, backends: Backends, metrics: Metrics) -> Scheduler:
    assert backends.store is not None
    plan = TimekeeperPlan(remember_s=settings.kafka_retention_s) if settings.on_kafka else TimekeeperPlan()
    timekeeper = Timekeeper(
        plan,
        events=backends.events,
        store=backends.store,
        blobs=backends.blobs,
        queue=backends.queue,
        metrics=metrics,
        clock=time.time,
        monotonic=time.monotonic,
        random=random.random,
    )
    return Scheduler(backends.queue, timekeeper)


def _limits(catalog: Catalog) -> Mapping[str, ModelLimits]:
    """By the model's name; they are the same for all of its versions."""
    return {name: next(iter(versions.values())).limits for name, versions in catalog.specs.items()}
