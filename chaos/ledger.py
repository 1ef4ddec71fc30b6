"""What the oracle model wrote down (tests/models/oracle): every run of every job, whatever died afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

NEVER = float("inf")


class Run(Struct, frozen=True):
    """The model ran for `job_id`. Seconds since the epoch; `ended_at` is NEVER for a run that was cut off."""

    job_id: str
    attempt: int
    runner: int
    worker: int
    began_at: float
    ended_at: float
    digest: str


def read_ledger(text: str) -> Sequence[Run]:
    """In the order in which they began. Raises ValueError for a line that is none of the oracle's."""
    begun: list[tuple[tuple[str, ...], float, str]] = []
    ended: dict[tuple[str, ...], list[float]] = {}
    for line in text.splitlines():
        what, job_id, attempt, runner, worker, at, *digest = line.split(" ")
        key = (job_id, attempt, runner, worker)
        if what == "begin" and len(digest) == 1:
            begun.append((key, float(at), digest[0]))
        elif what == "end" and not digest:
            ended.setdefault(key, []).append(float(at))
        else:
            raise ValueError(f"not a line of the ledger: {line!r}")
    runs = [_run(key, at, digest, ended.get(key, [])) for key, at, digest in begun]
    return sorted(runs, key=lambda run: run.began_at)


def _run(key: tuple[str, ...], at: float, digest: str, ends: Sequence[float]) -> Run:
    """The same process may, wrongly, run an attempt twice: each run ends with the first end after it."""
    job_id, attempt, runner, worker = key
    ended_at = min((end for end in ends if end >= at), default=NEVER)
    return Run(job_id, int(attempt), int(runner), int(worker), at, ended_at, digest)
