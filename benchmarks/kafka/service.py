"""The service on Kafka and PostgreSQL, every role in a process of its own, with the servers that it needs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.stack import Stack
from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker
from dev.postgres.server import Postgres
from forebay.testing.service import RunningService, output_of

TEST_MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"

HEAP_MIB = 1024
JAVA = ("-Xms1g", "-XX:+UseSerialGC")
"""Both compilers and the heap that Kafka comes with. Of the collectors, on 2 cores, the one that costs least."""

BROKER = {
    # As Kafka comes, in place of what makes dev/kafka quick for tests.
    "num.network.threads": "3",
    "num.io.threads": "8",
    "offsets.topic.num.partitions": "50",
}


class KafkaService:
    """Starts and stops roles on one broker and one database. `settings` are for all roles; topics are there."""

    def __init__(
        self, folder: Path, models_dir: Path, models: Sequence[str], broker: Broker, postgres: Postgres
    ) -> None:
        self.broker = broker
        self.postgres = postgres
        self._folder = folder
        self._models_dir = models_dir
        self._roles: dict[str, RunningService] = {}  # the newest of each name
        self._started: list[RunningService] = []
        self.settings = {
            "queue": f"kafka://{broker.bootstrap}",
            "store": postgres.dsn(postgres.create_database()),
            "blobs": f"files://{folder / 'blobs'}",
            "blobs_shared": "true",
            "secrets": "a secret that all roles share",
            "models": ",".join(models),
            "trusted_models": ",".join(models),
            "log_level": "warning",
        }
        self._apply_topics()

    def start(self, *roles: str) -> RunningService:
        """A process with these roles, ready."""
        folder = self._folder / f"{'-'.join(roles)}-{len(self._started)}"
        process = RunningService(folder, self._models_dir, settings=self.settings, roles=roles)
        self._started.append(process)
        self._roles["+".join(roles)] = process
        process.start()
        return process

    def stop(self, *roles: str) -> None:
        """SIGTERM to the process with these roles; returns when it is gone."""
        self._roles.pop("+".join(roles)).stop()

    def role(self, *roles: str) -> RunningService:
        return self._roles["+".join(roles)]

    def kill(self) -> None:
        for process in self._started:
            process.kill()

    def stack(self) -> Stack:
        """All that runs now, as one service."""
        processes = {name: process.pid for name, process in self._roles.items()}
        servers = {"kafka": self.broker.pid, "postgresql": self.postgres.pid}
        url = next((process.url for process in self._roles.values() if process.url), "")
        return Stack(name="Forebay on Kafka + PostgreSQL", url=url, roles={**processes, **servers})

    def _apply_topics(self) -> None:
        places = {"models_dir": str(self._models_dir), "data_dir": str(self._folder / "command")}
        output_of("topics", "apply", settings={**self.settings, **places})


@contextlib.contextmanager
def kafka_service(*models: str, models_dir: Path = TEST_MODELS, roles: Sequence[str] = ()) -> Iterator[KafkaService]:
    """One broker, one PostgreSQL, topics for `models`, and each of `roles` in a process of its own."""
    install_with_archive()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = Broker(folder / "kafka", settings=BROKER, heap_mib=HEAP_MIB, java_options=JAVA)
        stack.enter_context(broker)
        postgres = stack.enter_context(Postgres())
        service = KafkaService(folder, models_dir, models, broker, postgres)
        stack.callback(service.kill)
        for role in roles:
            service.start(role)
        yield service
