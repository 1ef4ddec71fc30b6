"""A whole service as processes of its own: several of each role, each in a scratch folder, on a real Kafka and a real
database."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from chaos.models import Oracle, write_models
from chaos.planted import entry
from dev.kafka.ports import HOST, free_port
from forebay.testing.service import RunningService, output_of

READY_WITHIN_S = 120.0
"""A dozen Python processes start on two cores at once."""

COMMAND_WITHIN_S = 300.0
HASTY = Path(__file__).parent / "hasty.py"


KINDS = ("api", "worker", "projector", "scheduler", "webhooks")
"""Of the processes: the roles of the service."""


class Shape(Struct, frozen=True, kw_only=True):
    """How many processes of which role, and their settings (environment variables without prefix, in lower case).

    `planted`: see chaos/planted. `hasty`: webhooks are tried again soon (chaos/hasty.py).
    """

    apis: int = 2
    workers: int = 3
    projectors: int = 2
    schedulers: int = 1
    dispatchers: int = 0
    oracle: Oracle = Oracle()
    settings: Mapping[str, str] = {}
    planted: str = ""
    hasty: bool = False


class Role:
    """One process of the service, with the URL of its API if it has one. It can be killed and started again, held and
    let go; `taken` while somebody does."""

    def __init__(self, name: str, service: RunningService, url: str = "") -> None:
        self.name = name
        self.url = url
        self.kind = name.partition("-")[0]
        self.service = service
        self.taken = False

    @property
    def pid(self) -> int:
        return self.service.pid

    @property
    def gone(self) -> bool:
        return self.service.gone

    def pause(self, *, with_children: bool) -> Sequence[int]:
        """SIGSTOP, for its runners too if so wished; returns the processes to hand to `resume`."""
        held = [*(self.children() if with_children else ()), self.pid]
        self.service.pause()
        for pid in held[:-1]:
            _signal(pid, signal.SIGSTOP)
        return held

    def resume(self, held: Sequence[int]) -> None:
        for pid in held[:-1]:
            _signal(pid, signal.SIGCONT)
        self.service.resume()

    def children(self) -> list[int]:
        """Its runners, as the kernel knows them."""
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended in this moment
            return [
                int(pid)
                for task in Path(f"/proc/{self.pid}/task").iterdir()
                for pid in (task / "children").read_text().split()
            ]
        return []


class ServiceCluster:
    """`start` brings it up and returns when every role is ready; as a context manager it is killed in the end."""

    def __init__(self, folder: Path, *, queue: str, store: str, prefix: str, shape: Shape) -> None:
        self.folder = folder
        self.prefix = prefix
        self.ledger = folder / "ledger"
        self.shape = shape
        self._models = write_models(folder / "models", shape.oracle)
        self._settings = {
            "queue": queue,
            "store": store,
            "blobs": f"files://{folder / 'blobs'}",
            "blobs_shared": "true",
            "secrets": secrets.token_hex(16),
            "kafka_prefix": prefix,
            "kafka_session_timeout_s": "6",
            "models": shape.oracle.name,
            "trusted_models": shape.oracle.name,
            "log_level": "warning",
            **shape.settings,
        }
        self.roles: list[Role] = []
        counts = (shape.apis, shape.workers, shape.projectors, shape.schedulers, shape.dispatchers)
        for kind, count in zip(KINDS, counts, strict=True):
            for _ in range(count):
                self.add(kind)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def urls(self) -> list[str]:
        """Of the APIs; they stay the same over restarts."""
        return [role.url for role in self.roles if role.url]

    def of(self, *kinds: str) -> list[Role]:
        return [role for role in self.roles if role.kind in kinds]

    def add(self, kind: str) -> Role:
        """One more process, not started yet."""
        name = f"{kind}-{len(self.of(kind)) + 1}"
        settings = dict(self._settings)
        url = ""
        if kind == "api":
            settings["port"] = str(free_port())
            url = f"http://{HOST}:{settings['port']}"
        service = RunningService(
            self.folder / name, self._models, settings=settings, roles=[kind], entry=self._entry(kind)
        )
        role = Role(name, service, url)
        self.roles.append(role)
        return role

    def _entry(self, kind: str) -> Sequence[str]:
        hasty = self.shape.hasty and kind == "webhooks" and not self.shape.planted
        return [str(HASTY)] if hasty else entry(self.shape.planted)

    def start(self) -> None:
        """Create the topics, then start every role. Raises ServiceFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger.touch()
        self.command("topics", "apply")
        self.start_roles(self.roles)

    def start_roles(self, roles: Sequence[Role]) -> None:
        for role in roles:
            role.service.spawn()
        with ThreadPoolExecutor(len(roles) or 1) as pool:
            list(pool.map(lambda role: role.service.wait_ready(READY_WITHIN_S), roles))

    def command(self, *arguments: str, **more: str) -> str:
        """The output of a command of `forebay`, with the settings of the roles and `more`. Raises ServiceFailed."""
        places = {"models_dir": str(self._models), "data_dir": str(self.folder / "command")}
        return output_of(*arguments, settings={**self._settings, **places, **more}, timeout_s=COMMAND_WITHIN_S)

    def kill(self) -> None:
        """SIGKILL to every process that is left; returns when they are gone."""
        for role in self.roles:
            role.service.kill()

    def log_tails(self, characters: int = 1500) -> str:
        """The ends of all logs, for whoever asks why it did not go well."""
        return "\n".join(f"--- {role.name}\n{role.service.log_tail(characters)}" for role in self.roles)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended in this moment
        os.kill(pid, number)
