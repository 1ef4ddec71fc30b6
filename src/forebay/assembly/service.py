"""The roles of one process, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop
from msgspec import Struct, structs

from forebay.api.admin import build_admin_app
from forebay.assembly.access import prepare_access
from forebay.assembly.backends import Backends, open_backends
from forebay.assembly.clocks import check_models, check_store, clock_limits, foreign_clocks, scheduler_of
from forebay.assembly.depths import refresh_depths
from forebay.assembly.egress import egress_policy
from forebay.assembly.http import http_server
from forebay.assembly.own_reports import OwnReports
from forebay.assembly.process import (
    arm_crash_point,
    id_secrets,
    listener,
    on_signals,
    spare_collector,
    url_of,
)
from forebay.assembly.unserved import log_unserved
from forebay.assembly.webhooks import dispatcher_of
from forebay.assembly.workers import KeptWorker
from forebay.catalog import Catalog, read_models
from forebay.core.egress import EgressPolicy
from forebay.core.errors import Misconfigured
from forebay.core.ids import IdMint
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.projector import LagWatch, Projector
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics
from forebay.webhooks.sender import Sender
from forebay.worker.solitude import Solitude

ROLES = ("api", "worker", "projector", "scheduler", "webhooks")

log = structlog.get_logger()


class Addresses(Struct, frozen=True, kw_only=True):
    """Where the service listens and what it serves, once it is ready. Urls are "" for a role that does not run here."""

    api_url: str
    admin_url: str
    data_dir: Path
    durability: str
    models: Sequence[ModelReport]
    asked_for_keys: bool = False


def run(
    settings: Settings,
    roles: Collection[str] = ROLES,
    *,
    on_ready: Callable[[Addresses], None] = lambda addresses: None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain and return; a second signal ends the process at once.

    Blocks. Raises Misconfigured before anything is started: without secrets too, unless all roles run here. `on_ready`
    is called when every role accepts work and every model is loaded or known to be unavailable, `on_stop` at the first
    signal.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, roles, on_ready=on_ready, on_stop=on_stop))


async def serve(
    settings: Settings,
    roles: Collection[str],
    *,
    on_ready: Callable[[Addresses], None],
    on_stop: Callable[[], None],
) -> None:
    """As `run`, inside a running loop of the main thread."""
    arm_crash_point(settings.crash_at)
    catalog = read_models(settings.models_dir, settings.trusted_models)
    specs = _served(catalog, settings.models)
    check_models(settings, catalog)
    check_store(settings, roles)
    log_unserved(catalog, settings.models, settings.trusted_models)
    whole = set(roles) == set(ROLES)
    mint = IdMint(id_secrets(settings, make=whole), secrets.token_bytes)
    egress = egress_policy(settings, whole=whole)
    metrics = Metrics()
    models = list(catalog.served().specs) if "api" in roles else [spec.name for spec in specs]
    stopping = asyncio.Event()
    with contextlib.ExitStack() as signals:  # ours until the backends are closed too, for which brokers may take long
        async with (
            open_backends(settings, roles, models, clocks=foreign_clocks(settings, catalog)) as backends,
            contextlib.AsyncExitStack() as sockets,
        ):
            api = sockets.enter_context(listener(settings.host, settings.port, "port")) if "api" in roles else None
            admin = sockets.enter_context(listener(settings.admin_host, settings.admin_port, "admin_port"))
            sender = None
            if "webhooks" in roles:
                sender = await sockets.enter_async_context(Sender(egress, timeout_s=settings.webhook_timeout_s))
            asked = await prepare_access(settings, backends.owned.keys) if api is not None and backends.owned else False
            service = _Service(
                settings, roles, backends, catalog, specs, mint, metrics, api, admin, egress, sender, stopping, asked
            )
            signals.enter_context(on_signals(stopping, on_stop, kept=settings.queue != "memory://"))
            await service.run(on_ready)
    log.info("service.stopped")


class _Service:
    """What runs, and in which order it stops."""

    def __init__(
        self,
        settings: Settings,
        roles: Collection[str],
        backends: Backends,
        catalog: Catalog,
        specs: Sequence[ModelSpec],
        mint: IdMint,
        metrics: Metrics,
        api_socket: socket.socket | None,
        admin_socket: socket.socket,
        egress: EgressPolicy,
        sender: Sender | None,
        stopping: asyncio.Event,
        asked_for_keys: bool,
    ) -> None:
        self._settings = settings
        self._reports = OwnReports(backends.fleet)
        backends = structs.replace(backends, fleet=self._reports)
        self._backends = backends
        self._stopping = stopping
        self._asked_for_keys = asked_for_keys
        self._projector: Projector | None = None
        self._lag: LagWatch | None = None
        if backends.store is not None:
            if "projector" in roles:
                self._projector = Projector(backends.events, backends.store, metrics)
            if settings.on_kafka and "api" in roles:
                self._lag = LagWatch(backends.events, backends.store)
        self._scheduler = scheduler_of(settings, backends, metrics) if "scheduler" in roles else None
        self._dispatcher = dispatcher_of(settings, backends, metrics, sender) if sender is not None else None
        solitude = Solitude()
        self._workers = (
            [KeptWorker(settings, spec, backends, metrics, solitude) for spec in specs] if "worker" in roles else []
        )
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        if api_socket is not None:
            from forebay.api.app import build_app

            assert backends.store is not None
            assert backends.owned is not None
            app = build_app(
                catalog=catalog.served(),
                mint=mint,
                queue=backends.queue,
                store=backends.store,
                blobs=backends.blobs,
                fleet=backends.fleet,
                events=backends.events,
                cancellations=backends.cancellations,
                keys=backends.owned.keys,
                quotas=backends.owned.quotas,
                endpoints=backends.owned.endpoints,
                check_webhook_url=egress.check_url,
                default_quota=settings.default_quota,
                clocks=clock_limits(settings),
                max_queue_length=settings.max_queue_length,
                metrics=metrics,
                projector_lag_s=self._lag_s,
                draining=self._stopping,
                kinds={name: _technology(getattr(settings, name)) for name in ("queue", "store", "blobs")},
                inline_limit_bytes=settings.inline_limit_bytes,
                max_body_bytes=settings.max_body_bytes,
            )
            self._servers.append((http_server(app), api_socket))
        channels = [Channel(spec.name, lane) for spec in specs for lane in Lane]
        admin = build_admin_app(
            metrics, refresh=lambda: refresh_depths(backends.queue, backends.store, metrics, channels)
        )
        self._admin = (http_server(admin), admin_socket)

    async def run(self, on_ready: Callable[[Addresses], None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(self._lag.run(), name="lag")] if self._lag else []
            scheduling = [tasks.create_task(self._scheduler.run(), name="scheduler")] if self._scheduler else []
            sending = [tasks.create_task(self._dispatcher.run(), name="webhooks")] if self._dispatcher else []
            projecting = [tasks.create_task(self._projector.run(), name="projector")] if self._projector else []
            working = [tasks.create_task(worker.run(), name="worker") for worker in self._workers]
            serving = [tasks.create_task(server.serve([sock]), name="api") for server, sock in self._servers]
            tasks.create_task(self._admin[0].serve([self._admin[1]]), name="admin")
            await self._until_ready()
            spare_collector()
            if not self._stopping.is_set():
                on_ready(await self._addresses())
            await self._stopping.wait()
            # Stop along the path of a job, so that what a role still hands on finds the next one there: nothing new
            # from the queue, what is in hand ends, its events become visible. The API answers until the workers are
            # done, so that whoever waits for a running job still gets its result; what it accepts meanwhile is
            # kept.
            for worker in self._workers:
                worker.stop()
            await _all_done(working)
            for server, _ in self._servers:
                server.should_exit = True
            await _all_done(serving)
            if self._scheduler is not None:
                self._scheduler.stop()
            if self._projector is not None:
                self._projector.stop()
            for watch in watching:
                watch.cancel()
            await _all_done([*scheduling, *projecting])
            if self._dispatcher is not None:
                self._dispatcher.stop()
            await _all_done(sending)
            self._admin[0].should_exit = True

    def _lag_s(self) -> float:
        if self._lag is not None:
            return self._lag.lag_s()
        return self._projector.lag_s() if self._projector is not None else 0.0

    async def _until_ready(self) -> None:
        """Listening, and every model is loaded or known to be unavailable."""
        servers = [*(server for server, _ in self._servers), self._admin[0]]
        while not self._stopping.is_set():
            settled = sum(report.status is not ModelStatus.LOADING for report in self._reports.own)
            if all(server.started for server in servers) and settled == len(self._workers):
                return
            await asyncio.sleep(0.02)  # uvicorn offers nothing to wait on

    async def _addresses(self) -> Addresses:
        return Addresses(
            api_url=url_of(self._servers[0][1]) if self._servers else "",
            admin_url=url_of(self._admin[1]),
            data_dir=self._settings.data_dir,
            durability=self._backends.queue.features.durability.value,
            models=self._reports.own,
            asked_for_keys=self._asked_for_keys,
        )


def _technology(address: str) -> str:
    """What stands behind a port, for anybody to read: without hosts, names and passwords."""
    return address.partition("://")[0] + "://"


async def _all_done(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _served(catalog: Catalog, wanted: Collection[str]) -> list[ModelSpec]:
    """The default version of every model, or of those wanted. Raises Misconfigured for a name that is not there."""
    unknown = [name for name in wanted if name not in catalog.specs and name not in catalog.problems]
    if unknown:
        known = ", ".join(sorted(catalog.specs)) or "none"
        raise Misconfigured(
            "models: these are not in the models folder", mistakes=[f"{n} (there: {known})" for n in unknown]
        )
    return [catalog.resolve(name) for name in catalog.specs if not wanted or name in wanted]
