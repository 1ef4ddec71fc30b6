"""What the clients saw, append-only. An answer that never came is `unknown`, which is not the same as refused."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Submission(Struct, frozen=True):
    """A request with `text` was answered with 202 and `job_id` at `accepted_at` (seconds since the epoch)."""

    job_id: str
    text: str
    accepted_at: float


class History:
    """Everything one run of a storm saw."""

    def __init__(self) -> None:
        self.accepted: dict[str, Submission] = {}
        self.unknown = 0
        self.refused: list[int] = []
        self.kills: list[float] = []
        self.first_final: dict[str, dict[str, Any]] = {}
        self.changed: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.vanished: list[str] = []

    def accept(self, submission: Submission) -> None:
        self.accepted[submission.job_id] = submission

    def see(self, job_id: str, status: int, job: dict[str, Any]) -> None:
        """A read of an accepted job. What was final before must read the same, to the last character."""
        if status != 200:
            self.vanished.append(job_id)
            return
        before = self.first_final.get(job_id)
        if before is None:
            if job["status"] not in ("queued", "running"):
                self.first_final[job_id] = job
        elif before != job:
            self.changed.append((before, job))
