"""What the clients saw and what was done to the service: append-only, one log per client, each entry with its time.

A request has one of three ends. `Accepted`: a 202 came. `Refused`: it is certain that nothing was stored (a 4xx, a 503
that says so, a connection that was refused). `Unsure`: nobody can say (a 503 `outcome_unknown`, a connection that broke
after the request was sent). Taking the third for one of the others hides losses, or invents them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

SUCCEEDS = "succeeded"
DIES = "worker_lost"
"""How a job is expected to end that kills its worker each time."""

CANCELED = "canceled"
FINAL = frozenset({"succeeded", "failed", CANCELED, "expired"})

DEATH = "death"
"""The kind of fault that nobody did: a process ended of itself."""

_encode = msgspec.json.Encoder().encode


class Invoked(Struct, frozen=True, tag="invoke"):
    """Submission `op` with `text` was begun. `expected` is how the job must end: `succeeded`, or a job error's
    code. `key`: the same for all copies of one submission, "" without one."""

    at: float
    op: str
    text: str
    expected: str = SUCCEEDS
    key: str = ""


class Accepted(Struct, frozen=True, tag="ok"):
    at: float
    op: str
    job_id: str


class Refused(Struct, frozen=True, tag="fail"):
    """`status` 0: the connection was refused."""

    at: float
    op: str
    status: int
    code: str = ""


class Unsure(Struct, frozen=True, tag="unknown"):
    """`job_id` names the job that may exist, "" where the client was told no id."""

    at: float
    op: str
    job_id: str = ""
    reason: str = ""


class Seen(Struct, frozen=True, tag="read"):
    """A reading, asked for at `asked_at` and answered at `at`. `job` is the job object of a job that is final, else
    None; `state` is "" for an answer without a job."""

    asked_at: float
    at: float
    job_id: str
    status: int
    state: str = ""
    job: Mapping[str, Any] | None = None


class Canceled(Struct, frozen=True, tag="cancel"):
    """A client asked to cancel a job, at `asked_at`, and was answered at `at`; `status` 0: nobody answered. `job` is
    the job object of a job that is final, else None."""

    asked_at: float
    at: float
    job_id: str
    status: int
    state: str = ""
    job: Mapping[str, Any] | None = None


Entry = Invoked | Accepted | Refused | Unsure | Seen | Canceled


class Fault(Struct, frozen=True):
    """What was done to whom, or what befell it (DEATH). Seconds since the epoch; `ended_at` is when the target was
    itself again (a killed process: when its successor was ready; infinity while nobody knows).

    `pid` is the process that was hit; 0 for what hits everybody (a broker, a connection).
    """

    kind: str
    target: str
    pid: int
    began_at: float
    ended_at: float = float("inf")


class History(Struct, frozen=True):
    clients: Mapping[str, Sequence[Entry]]
    faults: Sequence[Fault] = ()


class Records:
    """The logs of one run while it is made. With a folder every entry is also written there at once, so that a run that
    ends badly leaves its evidence."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._logs: dict[str, ClientLog] = {}
        self.faults: list[Fault] = []

    def client(self, name: str) -> ClientLog:
        """The log of this client, the same one whenever asked."""
        if name not in self._logs:
            path = None
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                path = self._folder / f"{name}.jsonl"
            self._logs[name] = ClientLog(path)
        return self._logs[name]

    def begin(self, kind: str, target: str, pid: int) -> int:
        """A fault that lasts from now until `end` of what this returns."""
        self.faults.append(Fault(kind, target, pid, time.time()))
        return len(self.faults) - 1

    def end(self, number: int) -> None:
        self.faults[number] = replace(self.faults[number], ended_at=time.time())

    def history(self) -> History:
        """All of it so far."""
        return History({name: tuple(log.entries) for name, log in self._logs.items()}, tuple(self.faults))

    def close(self) -> None:
        for log in self._logs.values():
            log.close()


class ClientLog:
    """Written by one client."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = None if path is None else path.open("ab", buffering=0)
        self.entries: list[Entry] = []

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(_encode(entry) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
