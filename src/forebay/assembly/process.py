"""What a process needs around its roles: sockets, signals, the secret of its ids, crash points."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from forebay.core import crash
from forebay.core.errors import Misconfigured
from forebay.core.ids import SECRET_MIN_BYTES
from forebay.settings import Settings

GARBAGE_AFTER = 20_000
"""New objects, less those that are gone, after which Python looks for reference cycles, in place of 700: what a request
leaves behind is gone by its reference counts, and each look takes time from all that are under way."""


def spare_collector() -> None:
    """For a process that is ready: no look for cycles among what its start made, such as modules, routes and models,
    which is all there is to find most of the time, and stays; and a look less often at what has come since."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, *gc.get_threshold()[1:])


def id_secrets(settings: Settings, *, make: bool) -> Sequence[bytes]:
    """Those of the settings; else this data folder's own, which is made at the first start if this process may `make`
    one. Raises Misconfigured where it may not: roles run apart would each sign ids that the others do not know."""
    if settings.secret_bytes:
        return settings.secret_bytes
    path = settings.data_dir / "secret"
    try:
        if not path.exists():
            if not make:
                raise Misconfigured(
                    "roles that run apart sign job ids with one secret, and there is none: give all of them the same "
                    f"FOREBAY_SECRETS (such as from `openssl rand -hex 32`), or run `forebay up`, which makes {path}"
                )
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_secret(path)
        secret = path.read_text().strip().encode()
    except OSError as error:
        why = "a file is in its place" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise Misconfigured(
            f"the data folder {settings.data_dir} cannot be used: {why}; let this user write to it, or name "
            "another folder with data_dir (FOREBAY_DATA_DIR, --data-dir)"
        ) from error
    if len(secret) < SECRET_MIN_BYTES:
        raise Misconfigured(
            f"{path} holds no whole secret; put it back from a copy, or delete it: ids issued with it are then unknown"
        )
    return [secret]


def _make_secret(path: Path) -> None:
    """Written under another name and linked, so that whoever dies or comes second finds a whole secret or none; and
    flushed, since ids signed with it outlive a power cut. For its owner only."""
    descriptor, written = tempfile.mkstemp(prefix="secret.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(written, path)
        except FileExistsError:  # another was first, and its key holds for all
            pass
        except OSError:  # a file system without hard links: only who comes second in the same instant is not seen
            os.replace(written, path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has become `path`
            os.unlink(written)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def listener(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """A bound socket; Misconfigured, naming the setting, when it cannot be had."""
    with contextlib.ExitStack() as stack:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port}: {error.strerror or error}; "
                f"set {setting} (FOREBAY_{setting.upper()}) to a free port, or to 0 for any"
            ) from error
        yield sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def on_signals(stopping: asyncio.Event, on_stop: Callable[[], None], *, kept: bool = True) -> Iterator[None]:
    """First SIGINT or SIGTERM: stop in order. Second: end at once; runners die with us, and nothing accepted is
    lost where it is `kept`."""

    def stop() -> None:
        if stopping.is_set():
            _say_killed(kept)
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


def _say_killed(kept: bool) -> None:
    what = "nothing accepted is lost, what was not finished runs again at the next start" if kept else "jobs are lost"
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed, and that must keep nobody alive
        sys.stderr.write(f"killed by a second signal: {what}\n")
        sys.stderr.flush()


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
