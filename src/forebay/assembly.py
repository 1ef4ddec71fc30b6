"""The only place that knows which adapter meets which role. Settings in, a running service out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets as random_source
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop
from msgspec import Struct
from starlette.applications import Starlette

from forebay.adapters.files import FilesBlobs
from forebay.adapters.memory import MemoryBlobs, MemoryEventLog, MemoryFleet, MemoryLog, MemoryQueue, MemoryStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.api import build_admin_app, build_app
from forebay.catalog import Catalog, read_models
from forebay.core import crash
from forebay.core.errors import Misconfigured
from forebay.core.ids import IdMint
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.ports.fleet import Fleet, ModelReport
from forebay.ports.queue import Durability, Queue
from forebay.ports.store import ResultStore
from forebay.projector import Projector
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics
from forebay.worker.intake import Intake
from forebay.worker.runners import RunnerPlan, Runners
from forebay.worker.worker import Worker, WorkerPlan

ROLES = ("api", "worker", "projector")

RUNNER_CLOSE_GRACE_S = 2.0
"""A runner closed at a stop has nothing in hand; a model's own clean-up gets this long."""

log = structlog.get_logger()


class Addresses(Struct, frozen=True, kw_only=True):
    """Where the service listens and what it serves, once it is ready. Urls are "" for a role that does not run here."""

    api_url: str
    admin_url: str
    data_dir: Path
    durability: str
    models: Sequence[ModelReport]


class Backends(Struct, frozen=True, kw_only=True):
    """One adapter for each port."""

    queue: Queue
    events: EventLog
    store: ResultStore
    blobs: BlobStore
    fleet: Fleet


def run(
    settings: Settings,
    roles: Collection[str] = ROLES,
    *,
    on_ready: Callable[[Addresses], None] = lambda addresses: None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain and return; a second signal ends the process at once.

    Blocks. Raises Misconfigured before anything is started. `on_ready` is called when every role accepts work and every
    model is loaded or known to be unavailable, `on_stop` at the first signal.
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
    _arm_crash_point(settings.crash_at)
    catalog = read_models(settings.models_dir, settings.trusted_models)
    specs = _served(catalog, settings.models)
    mint = IdMint(_secrets(settings), random_source.token_bytes)
    metrics = Metrics()
    async with _backends(settings) as backends:
        with _listener(settings.host, settings.port, "port") as api_socket:
            with _listener(settings.admin_host, settings.admin_port, "admin_port") as admin_socket:
                service = _Service(settings, roles, backends, catalog, specs, mint, metrics, api_socket, admin_socket)
                await service.run(on_ready, on_stop)
    log.info("service.stopped")


class _Service:
    """The roles of one process, started and stopped in order."""

    def __init__(
        self,
        settings: Settings,
        roles: Collection[str],
        backends: Backends,
        catalog: Catalog,
        specs: Sequence[ModelSpec],
        mint: IdMint,
        metrics: Metrics,
        api_socket: socket.socket,
        admin_socket: socket.socket,
    ) -> None:
        self._settings = settings
        self._backends = backends
        self._stopping = asyncio.Event()
        self._projector = Projector(backends.events, backends.store, metrics) if "projector" in roles else None
        self._workers = [_worker(settings, spec, backends, metrics) for spec in specs] if "worker" in roles else []
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        if "api" in roles:
            app = build_app(
                catalog=catalog,
                mint=mint,
                queue=backends.queue,
                store=backends.store,
                blobs=backends.blobs,
                fleet=backends.fleet,
                metrics=metrics,
                projector_lag_s=self._projector.lag_s if self._projector else float,
                draining=self._stopping,
                kinds={"queue": settings.queue, "store": settings.store, "blobs": settings.blobs},
                inline_limit_bytes=settings.inline_limit_bytes,
                max_body_bytes=settings.max_body_bytes,
            )
            self._servers.append((_server(app, settings), api_socket))
        channels = [Channel(spec.name, lane) for spec in specs for lane in Lane]
        admin = build_admin_app(metrics, refresh=lambda: _refresh_depths(backends.queue, metrics, channels))
        self._admin = (_server(admin, settings), admin_socket)

    async def run(self, on_ready: Callable[[Addresses], None], on_stop: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            projecting = [tasks.create_task(self._projector.run(), name="projector")] if self._projector else []
            working = [tasks.create_task(worker.run(), name="worker") for worker in self._workers]
            serving = [tasks.create_task(server.serve([sock]), name="api") for server, sock in self._servers]
            tasks.create_task(self._admin[0].serve([self._admin[1]]), name="admin")
            with _on_signals(self._stopping, on_stop):
                await self._until_ready()
                if not self._stopping.is_set():
                    on_ready(await self._addresses())
                await self._stopping.wait()
                # Stop along the path of a job, so that what a role still hands on finds the next one there: no new
                # requests, nothing new from the queue, what is in hand ends, its events become visible.
                for server, _ in self._servers:
                    server.should_exit = True
                for worker in self._workers:
                    worker.stop()
                await _all_done(working)
                if self._projector is not None:
                    self._projector.stop()
                await _all_done(projecting)
                await _all_done(serving)
                self._admin[0].should_exit = True

    async def _until_ready(self) -> None:
        """Listening, and every model is loaded or known to be unavailable."""
        servers = [*(server for server, _ in self._servers), self._admin[0]]
        while not self._stopping.is_set():
            reports = await self._backends.fleet.reports()
            settled = sum(report.status is not ModelStatus.LOADING for report in reports)
            if all(server.started for server in servers) and settled == len(self._workers):
                return
            await asyncio.sleep(0.02)  # uvicorn offers nothing to wait on

    async def _addresses(self) -> Addresses:
        return Addresses(
            api_url=_url(self._servers[0][1]) if self._servers else "",
            admin_url=_url(self._admin[1]),
            data_dir=self._settings.data_dir,
            durability=self._backends.queue.features.durability.value,
            models=await self._backends.fleet.reports(),
        )


async def _all_done(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def _backends(settings: Settings) -> AsyncIterator[Backends]:
    """The adapters that the settings name, opened, and closed in the end."""
    fleet = MemoryFleet()
    async with contextlib.AsyncExitStack() as stack:
        if settings.queue == "memory://":
            memory = MemoryLog()
            queue: Queue = MemoryQueue(memory)
            events: EventLog = MemoryEventLog(memory)
            store: ResultStore = MemoryStore()
        else:
            durability = Durability.FLUSHED if settings.synchronous == "full" else Durability.PROCESS
            database = Database(settings.data_dir, durability=durability).open()
            stack.push_async_callback(database.close)
            queue, events, store = SqliteQueue(database), SqliteEventLog(database), SqliteStore(database)
        blobs: BlobStore = MemoryBlobs()
        if settings.blobs == "files://":
            blobs = FilesBlobs(settings.data_dir / "blobs", fsync=settings.synchronous == "full")
        yield Backends(queue=queue, events=events, store=store, blobs=blobs, fleet=fleet)


def _worker(settings: Settings, spec: ModelSpec, backends: Backends, metrics: Metrics) -> Worker:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    plan = RunnerPlan(
        worker_id=settings.worker_id,
        decode_threads=max(1, cores // spec.replicas),
        load_timeout_s=settings.load_timeout_s,
        close_grace_s=RUNNER_CLOSE_GRACE_S,
    )
    return Worker(
        spec,
        WorkerPlan(
            worker_id=settings.worker_id,
            inline_limit_bytes=settings.inline_limit_bytes,
            stop_grace_s=settings.shutdown_grace_s,
        ),
        intake=Intake({lane: backends.queue.consumer(Channel(spec.name, lane)) for lane in Lane}),
        events=backends.events,
        blobs=backends.blobs,
        runners=Runners(spec, plan, fleet=backends.fleet, metrics=metrics),
        metrics=metrics,
    )


def _served(catalog: Catalog, wanted: Collection[str]) -> list[ModelSpec]:
    """The default version of every model, or of those wanted. Raises Misconfigured for a name that is not there."""
    unknown = [name for name in wanted if name not in catalog.specs and name not in catalog.problems]
    if unknown:
        known = ", ".join(sorted(catalog.specs)) or "none"
        raise Misconfigured(
            "models: these are not in the models folder", mistakes=[f"{n} (there: {known})" for n in unknown]
        )
    return [catalog.resolve(name) for name in catalog.specs if not wanted or name in wanted]


def _secrets(settings: Settings) -> Sequence[bytes]:
    """Those of the settings; else one of this data folder's own, made at the first start and readable by its owner
    only."""
    if settings.secret_bytes:
        return settings.secret_bytes
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    path = settings.data_dir / "secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(random_source.token_hex(32))
    return [path.read_text().strip().encode()]


@contextlib.contextmanager
def _listener(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """A bound socket; Misconfigured, naming the setting, when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            yield sock
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f"set {setting} (FOREBAY_{setting.upper()}) to a free port, or to 0 for any"
        ) from error


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the whole process stops in one order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Starlette, settings: Settings) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        )
    )


@contextlib.contextmanager
def _on_signals(stopping: asyncio.Event, on_stop: Callable[[], None]) -> Iterator[None]:
    """First SIGINT or SIGTERM: stop in order. Second: end at once; runners die with us, and nothing accepted is
    lost."""

    def stop() -> None:
        if stopping.is_set():
            os._exit(128 + signal.SIGINT)
        stopping.set()
        on_stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _refresh_depths(queue: Queue, metrics: Metrics, channels: Sequence[Channel]) -> None:
    """Read when scraped, so that nothing is counted for nobody."""
    for channel in channels:
        metrics.queue_depth.labels(channel.model, channel.lane).set(await queue.depth(channel))


def _arm_crash_point(crash_at: str) -> None:
    """`point:n`: SIGKILL this process the n-th time it reaches the point. For tests."""
    if not crash_at:
        return
    point, _, count = crash_at.rpartition(":")
    left = int(count)

    def die(name: str) -> None:
        nonlocal left
        left -= name == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    crash.arm(die)
