"""Each peer as a whole: Redis, FastAPI on uvicorn, the worker."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.environment import BIN, ready
from benchmarks.programs import Program
from benchmarks.stack import Stack
from dev.kafka.ports import HOST, free_port

HERE = Path(__file__).resolve().parent

# As our API runs; and Redis keeps nothing on disk, which is the fastest it can be.
UVICORN = ("--http", "httptools", "--ws", "none", "--loop", "uvloop", "--no-access-log", "--log-level", "warning")
REDIS = ("--save", "", "--appendonly", "no", "--bind", HOST)

# One worker process each: of 1 and 2 on 2 cores the faster (docs/benchmarks.md).
CELERY_WORKER = ("celery", "-A", "celery_app:celery", "worker", "--concurrency", "1", "--loglevel", "info")
CELERY_READY = b" ready."
TASKIQ_WORKER = ("taskiq", "worker", "--workers", "1", "--log-level", "INFO", "taskiq_app:broker")
TASKIQ_READY = b"Listening started"


@contextlib.contextmanager
def celery() -> Iterator[Stack]:
    with _peer("FastAPI + Celery + Redis, acks late", "celery_app:app", CELERY_WORKER, CELERY_READY) as stack:
        yield stack


@contextlib.contextmanager
def taskiq() -> Iterator[Stack]:
    with _peer("FastAPI + Taskiq + Redis stream", "taskiq_app:app", TASKIQ_WORKER, TASKIQ_READY) as stack:
        yield stack


@contextlib.contextmanager
def _peer(name: str, app: str, worker: Sequence[str], worker_ready: bytes) -> Iterator[Stack]:
    ready()
    redis_port, api_port = free_port(), free_port()
    environ = {"PEER_REDIS": f"redis://{HOST}:{redis_port}"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(role: str, *command: str) -> Program:
            return stack.enter_context(Program(command, folder / f"{role}.log", environ=environ, cwd=HERE))

        redis = start("redis", "redis-server", "--port", str(redis_port), "--dir", str(folder), *REDIS)
        redis.until_listening(redis_port)
        program, *arguments = worker
        working = start("worker", str(BIN / program), *arguments)
        api = start("api", str(BIN / "uvicorn"), app, "--host", HOST, "--port", str(api_port), *UVICORN)
        working.until_logged(worker_ready)
        api.until_listening(api_port)
        roles = {"api": api.pid, "worker": working.pid, "redis": redis.pid}
        yield Stack(name=name, url=f"http://{HOST}:{api_port}", roles=roles)
