"""What a process needs around its roles: sockets, HTTP servers, signals, the secret of its ids, crash points."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.applications import Starlette

from forebay.core import crash
from forebay.core.errors import Misconfigured
from forebay.settings import Settings


def id_secrets(settings: Settings) -> Sequence[bytes]:
    """Those of the settings; else one of this data folder's own, made at the first start and readable by its owner
    only."""
    if settings.secret_bytes:
        return settings.secret_bytes
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    path = settings.data_dir / "secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return [path.read_text().strip().encode()]


@contextlib.contextmanager
def listener(host: str, port: int, setting: str) -> Iterator[socket.socket]:
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


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the whole process stops in one order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(app: Starlette, settings: Settings) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
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
def on_signals(stopping: asyncio.Event, on_stop: Callable[[], None]) -> Iterator[None]:
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


def arm_crash_point(crash_at: str) -> None:
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
