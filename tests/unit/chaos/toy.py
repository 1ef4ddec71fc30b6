"""A toy of the whole service in one thread and in made-up time, of which every step is known: two workers, two
projectors, one API, a log. It is killed and paused between any two steps, and can have each of the bugs that the
checker must find.

No sentence about Forebay is proved here, only about the checker: that it sees what such bugs do, and nothing where
there is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from msgspec import Struct

from chaos.checker import digest, judge
from chaos.facts import Facts, FinalEvent
from chaos.history import Accepted, Fault, History, Invoked, Records, Refused, Seen, Unsure
from chaos.rules import Rules
from chaos.verdict import Verdict
from forebay.core.times import to_rfc3339

BUGS = (
    "ack before delivery report",
    "commit before result",
    "auto commit",
    "last writer wins",
    "batch shifted by one",
    "attempts only in memory",
    "offset reset latest",
    "projector position outside the transaction",
    "an unknown outcome told as a refusal",
    "a worker lets go of what it runs",
)

JOBS = 120
BATCH = 4
STEP_S = 0.02
BEGAN_AT = 1_800_000_000.0
RULES = Rules(busy_at=1, settle_s=1.0)

Steps = Generator[None]
OVER = object()


class Actor(Struct):
    """Something that runs step by step, and can be killed or held between two of them."""

    name: str
    pid: int
    make: Callable[[int], Steps]
    steps: Steps | None = None
    held_until: float = 0.0


class Toy:
    def __init__(self, seed: int, bug: str = "") -> None:
        self._random = random.Random(seed)
        self._bug = bug
        self._now = BEGAN_AT
        self._pids = 100
        self._sent = 0
        self._records = Records()
        self._ledger: list[str] = []
        # The log, and what the service keeps of it.
        self._requests: list[tuple[str, str]] = []
        self._events: list[tuple[str, FinalEvent, float]] = []
        self._done: set[str] = set()
        self._begun: dict[str, int] = {}
        self._in_hand: dict[str, int] = {}
        self._store: dict[str, dict[str, Any]] = {}
        self._position = 0
        self._first_read = 0 if bug != "offset reset latest" else 10
        makers = {"api": self._submit, "worker": self._work, "projector": self._project}
        self._actors = [self._new(name, makers[name]) for name in ("api", "worker", "worker", "projector", "projector")]

    def verdict(self) -> Verdict:
        """Run it to the end and judge it."""
        while self._sent < JOBS or self._unfinished():
            self._step()
            if self._now > BEGAN_AT + 400:  # what is not final by now never will be
                break
        history, finals, facts = self._evidence()
        return judge(history, "".join(self._ledger), finals, facts, RULES)

    def _evidence(self) -> tuple[History, dict[str, Seen], Facts]:
        history = self._records.history()
        ids = {job_id for job_id, _ in self._requests}
        ids |= {entry.job_id for log in history.clients.values() for entry in log if isinstance(entry, Accepted)}
        finals: dict[str, list[FinalEvent]] = {}
        for job_id, event, _ in self._events:
            finals.setdefault(job_id, []).append(event)
        facts = Facts({job_id: digest(text) for job_id, text in self._requests}, finals)
        return history, {job_id: self._read(job_id) for job_id in ids}, facts

    # -- time and harm ---------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._now += STEP_S
        actor = self._random.choice([one for one in self._actors if one.held_until <= self._now] or self._actors)
        if self._sent < JOBS and self._random.random() < 0.03:
            self._harm(self._random.choice(self._actors))
            return
        if actor.held_until > self._now:
            return
        actor.steps = actor.steps or actor.make(actor.pid)
        if next(actor.steps, OVER) is OVER:
            actor.steps = None
        self._look()

    def _harm(self, actor: Actor) -> None:
        """Killed and started anew, or held for a while; meanwhile others get what it had in hand."""
        held = self._random.random() < 0.3
        until = self._now + self._random.uniform(0.2, 3.0) if held else self._now
        self._records.faults.append(Fault("pause" if held else "kill", actor.name, actor.pid, self._now, until))
        self._in_hand = {job: pid for job, pid in self._in_hand.items() if pid != actor.pid}
        if held:
            actor.held_until = until
            return
        if actor.steps is not None:
            actor.steps.close()
        self._actors[self._actors.index(actor)] = self._new(actor.name, actor.make)

    def _new(self, name: str, make: Callable[[int], Steps]) -> Actor:
        self._pids += 1
        return Actor(name, self._pids, make)

    # -- the clients -----------------------------------------------------------------------------------------------

    def _submit(self, pid: int) -> Steps:
        if self._sent >= JOBS:
            return
        self._sent += 1
        job_id, op, text = f"job-{self._sent}", str(self._sent), f"text {self._sent}"
        log = self._records.client("submitter")
        log.append(Invoked(self._now, op, text))
        answered = False
        try:
            if self._bug == "ack before delivery report":
                log.append(Accepted(self._now, op, job_id))
                answered = True
            yield
            self._requests.append((job_id, text))
            yield
            if not answered:
                log.append(Accepted(self._now, op, job_id))
            answered = True
        finally:  # the API died before it answered
            if not answered:
                log.append(self._broken_off(op, job_id))

    def _broken_off(self, op: str, job_id: str) -> Any:
        if self._bug == "an unknown outcome told as a refusal":
            return Refused(self._now, op, 503, "unavailable")
        return Unsure(self._now, op, self._random.choice(["", job_id]), "the connection broke")

    def _look(self) -> None:
        """A reader that sees everything that is final, now and then."""
        if self._random.random() < 0.2 and self._store:
            self._records.client("reader").append(self._read(self._random.choice(sorted(self._store))))

    def _read(self, job_id: str) -> Seen:
        job = self._store.get(job_id)
        return Seen(self._now, self._now, job_id, 200, job["status"] if job else "queued", dict(job) if job else None)

    # -- the service -----------------------------------------------------------------------------------------------

    def _waiting(self) -> list[tuple[str, str]]:
        return [
            one
            for one in self._requests[self._first_read :]
            if one[0] not in self._done and one[0] not in self._in_hand
        ]

    def _unfinished(self) -> bool:
        return any(job_id not in self._store for job_id, _ in self._requests)

    def _work(self, pid: int) -> Steps:
        batch = self._waiting()[:BATCH]
        if not batch:
            return
        held = dict.fromkeys((job_id for job_id, _ in batch), pid)
        self._in_hand |= held
        if self._bug == "auto commit":
            self._done |= held.keys()
        remembered = {} if self._bug == "attempts only in memory" else self._begun
        attempts = {job_id: remembered.get(job_id, 0) + 1 for job_id in held}
        self._begun |= attempts
        yield
        if self._bug == "commit before result":
            self._done |= held.keys()
        if self._bug == "a worker lets go of what it runs" and self._random.random() < 0.2:
            self._in_hand = {job: owner for job, owner in self._in_hand.items() if job not in held}
        self._note("begin", pid, batch, attempts)
        yield
        self._note("end", pid, batch, attempts)
        outputs = [{"job": job, "attempt": attempts[job], "answer": digest(text)} for job, text in batch]
        if self._bug == "batch shifted by one":
            outputs = [*outputs[1:], outputs[0]]
        yield
        for (job_id, _), output in zip(batch, outputs, strict=True):
            self._events.append((job_id, FinalEvent("succeeded", attempts[job_id], output), self._now))
        yield
        if all(self._in_hand.get(job_id) == pid for job_id in held):
            self._done |= held.keys()
            self._in_hand = {job: owner for job, owner in self._in_hand.items() if job not in held}

    def _note(self, what: str, pid: int, batch: list[tuple[str, str]], attempts: dict[str, int]) -> None:
        for job_id, text in batch:
            tail = f" {digest(text)}" if what == "begin" else ""
            self._ledger.append(f"{what} {job_id} {attempts[job_id]} {pid + 1000} {pid} {self._now:.6f}{tail}\n")

    def _project(self, pid: int) -> Steps:
        begin, end = self._position, len(self._events)
        facts = self._events[begin:end]
        yield
        if self._position != begin:
            return
        if self._bug == "projector position outside the transaction":
            self._position = end
            yield
        for job_id, event, at in facts:
            if job_id not in self._store or self._bug == "last writer wins":
                self._store[job_id] = {
                    "id": job_id,
                    "status": event.status,
                    "attempts": event.attempt,
                    "output": event.output,
                    "finished_at": to_rfc3339(at),
                }
        self._position = end
