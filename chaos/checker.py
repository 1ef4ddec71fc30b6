"""The judge: a pure function of what clients saw and what the model wrote down. It cannot see how the service works."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from chaos.history import History


class Verdict(Struct, frozen=True, kw_only=True):
    """Counts; every field after `busy_kills` must be 0 for a promise to hold."""

    accepted: int
    unknown: int
    runs: int
    interrupted: int
    kills: int
    busy_kills: int
    lost: int
    vanished: int
    changed: int
    failed: int
    swapped: int
    wrong_answers: int
    false_attempts: int
    repeated_attempts: int

    @property
    def broken(self) -> dict[str, int]:
        """The promises that did not hold, with how often."""
        names = ("lost", "vanished", "changed", "failed", "swapped", "wrong_answers", "false_attempts")
        counts = {name: getattr(self, name) for name in (*names, "repeated_attempts")}
        return {name: count for name, count in counts.items() if count}

    def __str__(self) -> str:
        return "  ".join(f"{name}={getattr(self, name)}" for name in self.__struct_fields__)


def judge(history: History, ledger: str, busy_at: int) -> Verdict:
    """`ledger` is what the oracle model wrote: one line `job attempt` per run. A kill is busy when at that moment at
    least `busy_at` accepted jobs had no final state.

    lost: no final state. swapped: the answer names another job. wrong_answers: not the digest of the text sent.
    false_attempts: `attempts` is not the number of the run that answered, or that run never was. repeated_attempts: the
    same attempt of a job ran twice, so a run went uncounted. interrupted: jobs that needed more than one attempt.
    """
    runs = Counter(tuple(line.split()) for line in ledger.splitlines())
    finals = history.first_final
    succeeded = {job_id: job for job_id, job in finals.items() if job["status"] == "succeeded"}
    return Verdict(
        accepted=len(history.accepted),
        unknown=history.unknown,
        runs=runs.total(),
        interrupted=sum(job["attempts"] > 1 for job in finals.values()),
        kills=len(history.kills),
        busy_kills=sum(_unfinished(history, at) >= busy_at for at in history.kills),
        lost=sum(job_id not in finals for job_id in history.accepted),
        vanished=len(history.vanished),
        changed=len(history.changed),
        failed=len(finals) - len(succeeded),
        swapped=sum(job["output"]["job"] != job_id for job_id, job in succeeded.items()),
        wrong_answers=sum(
            job["output"]["answer"] != _digest(history.accepted[job_id].text) for job_id, job in succeeded.items()
        ),
        false_attempts=sum(_attempts_are_false(job, runs) for job in succeeded.values()),
        repeated_attempts=sum(count > 1 for count in runs.values()),
    )


def _attempts_are_false(job: Mapping[str, Any], runs: Mapping[tuple[str, ...], int]) -> bool:
    ran = (job["id"], str(job["attempts"])) in runs
    return not ran or job["output"]["attempt"] != job["attempts"]


def _unfinished(history: History, at: float) -> int:
    return sum(
        submission.accepted_at < at and _finished_at(history.first_final.get(submission.job_id)) > at
        for submission in history.accepted.values()
    )


def _finished_at(job: Mapping[str, Any] | None) -> float:
    return float("inf") if job is None else datetime.fromisoformat(job["finished_at"]).timestamp()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
