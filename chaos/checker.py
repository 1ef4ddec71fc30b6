"""The judge: a pure function of what clients saw, what the model wrote down, what stands in the log and what is read in
the end. It cannot see how the service works."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from chaos import timing
from chaos.facts import Facts, FinalEvent
from chaos.history import (
    CANCELED,
    DEATH,
    DIES,
    FINAL,
    SUCCEEDS,
    Accepted,
    Canceled,
    Fault,
    History,
    Invoked,
    Refused,
    Seen,
    Unsure,
)
from chaos.ledger import Run, read_ledger
from chaos.rules import Rules
from chaos.verdict import Verdict

WITHOUT_OUTPUT = "without output"
NOT_COMPARED = frozenset({"urls", "request_id"})

Job = Mapping[str, Any]


def judge(
    history: History,
    ledger: str,
    finals: Mapping[str, Seen],
    facts: Facts | None = None,
    rules: Rules = Rules(),  # noqa: B008 - a frozen value
) -> Verdict:
    """`finals` are the readings of every known job after all was healed; `facts` what the log holds, None where nobody
    looked (then what only the log can tell counts 0). What each count means stands at `Verdict`."""
    case = _Case(history, read_ledger(ledger), finals, facts)
    own_deaths = case.own_deaths()
    faults = [fault for fault in history.faults if fault not in own_deaths]
    reruns = timing.reruns(case.runs, history.faults, rules.settle_s, case.unwanted, case.repeated)
    waits = timing.waits_while_away(case.asked_at, case.ended_at, history.faults)
    recoveries = timing.recoveries(case.accepted.values(), history.faults)
    return Verdict(
        accepted=len(case.accepted),
        unknown=len(case.unsure),
        refused=len(case.refused),
        runs=len(case.runs),
        reruns=reruns.count,
        reruns_bound=reruns.bound,
        interrupted=sum(job["attempts"] > 1 for job in case.final_jobs.values()),
        duplicate_finals=sum(len(events) - 1 for events in facts.finals.values()) if facts else 0,
        faults=len(faults),
        busy_faults=timing.busy_faults(case.accepted.values(), case.final_jobs, faults, rules.busy_at),
        refused_outages=timing.refused_outages(case.refusals, history.faults),
        asked_while_away=len(waits),
        deadly=len(case.deadly()),
        cancels=len(case.cancels),
        acknowledged=len(case.acknowledged()),
        keys=sum(bool(case.answered(copies)) for copies in case.copies.values()),
        copies=sum(len(case.answered(copies)) for copies in case.copies.values()),
        slowest_refusal_s=max((seconds for _, seconds in case.refusals), default=0.0),
        slowest_answer_s=max(waits, default=0.0),
        slowest_recovery_s=max(recoveries, default=0.0),
        lost=len(case.must_end() - case.final_jobs.keys()),
        vanished=len(case.vanished()),
        unanswered=sum(len(copies) - len(case.answered(copies)) for copies in case.copies.values()),
        doubled=case.doubled(),
        uncanceled=len(case.uncanceled()),
        changed=len(case.changed()),
        contradicted=_contradicted(case.final_jobs, facts.finals) if facts else 0,
        phantom=len(case.phantoms()),
        failed=sum(not case.as_expected(job_id, job) for job_id, job in case.final_jobs.items()),
        swapped=sum(output["job"] != job_id for job_id, output in case.outputs()),
        wrong_answers=sum(output["answer"] != case.digest_of(job_id) for job_id, output in case.outputs()),
        false_attempts=sum(_attempts_are_false(job, case.ran) for job in case.final_jobs.values()),
        repeated_attempts=case.repeated_attempts(),
        unexplained_reruns=reruns.unexplained,
        wrong_deaths=case.wrong_deaths(rules.deaths),
        own_deaths=len(own_deaths),
        false_202=len(case.accepted.keys() - facts.requests.keys()) if facts else 0,
        false_refusals=case.false_refusals(),
        dead_lettered_good=sum(case.expected(job_id) == SUCCEEDS for job_id in facts.dead_letters) if facts else 0,
        not_dead_lettered=len(case.unburied(facts.dead_letters)) if facts else 0,
        internal_errors=case.internal_errors(),
        slow_refusals=sum(seconds > rules.answer_within_s for _, seconds in case.refusals),
        slow_answers=sum(seconds > rules.answer_within_s for seconds in waits),
        slow_recoveries=sum(seconds > rules.recovery_within_s for seconds in recoveries),
    )


class _Case:
    """The evidence, sorted."""

    def __init__(self, history: History, runs: Sequence[Run], finals: Mapping[str, Seen], facts: Facts | None) -> None:
        entries = [entry for log in history.clients.values() for entry in log]
        self.runs = runs
        self.faults = history.faults
        self.ran = Counter((run.job_id, run.attempt) for run in runs)
        self.invoked = {entry.op: entry for entry in entries if isinstance(entry, Invoked)}
        self.copies: dict[str, list[Invoked]] = {}
        for asked in self.invoked.values():
            if asked.key:
                self.copies.setdefault(asked.key, []).append(asked)
        self.repeated = facts.repeated if facts else frozenset()
        self.asked_at = {op: entry.at for op, entry in self.invoked.items()}
        self.ended_at = {entry.op: entry.at for entry in entries if isinstance(entry, (Accepted, Refused, Unsure))}
        self.accepted = {entry.job_id: entry for entry in entries if isinstance(entry, Accepted)}
        self._accepted_ops = {entry.op for entry in entries if isinstance(entry, Accepted)}
        self.refused = [entry for entry in entries if isinstance(entry, Refused)]
        # A client that died before an answer came is as unsure as one that was told so.
        self.unsure = [entry for entry in entries if isinstance(entry, Unsure)]
        self.unsure += [Unsure(entry.at, op) for op, entry in self.invoked.items() if op not in self.ended_at]
        self.final_jobs = {
            job_id: seen.job for job_id, seen in finals.items() if seen.job is not None and seen.state in FINAL
        }
        self.cancels = [entry for entry in entries if isinstance(entry, Canceled)]
        self.unwanted = frozenset(entry.job_id for entry in self.cancels)
        readings = [entry for entry in [*entries, *finals.values()] if isinstance(entry, Seen)]
        # The answer to a cancellation is a reading like any other, but for the output, which it leaves out.
        readings += [
            Seen(
                entry.asked_at,
                entry.at,
                entry.job_id,
                entry.status,
                entry.state,
                {**entry.job, WITHOUT_OUTPUT: True} if entry.job else None,
            )
            for entry in self.cancels
            if entry.status
        ]
        self._readings = _by_job(readings)
        self._facts = facts
        self._op_of = {entry.job_id: entry.op for entry in self.accepted.values()}
        self._op_of |= {entry.job_id: entry.op for entry in self.unsure if entry.job_id}

    @property
    def refusals(self) -> list[tuple[float, float]]:
        """When each 503 came, and how long after it was asked for."""
        told = [(entry.at, entry.op) for entry in self.refused if entry.status == 503]
        told += [(entry.at, entry.op) for entry in self.unsure if entry.reason.startswith("503")]
        return [(at, at - self.invoked[op].at) for at, op in told]

    def must_end(self) -> set[str]:
        """What was accepted, and what came into the log whatever the client was told."""
        return {*self.accepted, *(self._facts.requests if self._facts else ())}

    def expected(self, job_id: str) -> str:
        op = self._op_of.get(job_id)
        return self.invoked[op].expected if op else SUCCEEDS

    def digest_of(self, job_id: str) -> str:
        """Of the text that was submitted under this id, as the client remembers it; as the log does for an id that no
        client was told."""
        op = self._op_of.get(job_id)
        if op:
            return digest(self.invoked[op].text)
        return self._facts.requests.get(job_id, "") if self._facts else ""

    def deadly(self) -> set[str]:
        """Jobs that kill their worker each time, of those that must end."""
        return {job_id for job_id in self.must_end() if self.expected(job_id) == DIES}

    def unburied(self, dead_letters: Collection[str]) -> set[str]:
        """Deadly jobs that failed and left no dead letter."""
        failed = {job_id for job_id, job in self.final_jobs.items() if job["status"] == "failed"}
        return (self.deadly() & failed).difference(dead_letters)

    def wrong_deaths(self, deaths: int) -> int:
        """Deadly jobs that did not end with so many attempts, or were not handed to the model once for each.

        The first may be missing there: an attempt is counted before the model has it, and another deadly job may end
        their worker in between. Later ones run alone, so that nothing else can.
        """
        if not deaths:
            return 0
        attempts: dict[str, list[int]] = {}
        for run in self.runs:
            attempts.setdefault(run.job_id, []).append(run.attempt)
        return sum(
            self.final_jobs[job_id]["attempts"] != deaths
            or sorted(attempts.get(job_id, ())) != list(range(2 if self._struck(job_id) else 1, deaths + 1))
            for job_id in self.deadly() & self.final_jobs.keys()
        )

    def _struck(self, job_id: str) -> bool:
        """Whether its first attempt never ran, and before the second one another deadly job ended its worker."""
        runs = [run for run in self.runs if run.job_id == job_id]
        if not runs or any(run.attempt == 1 for run in runs):
            return False
        others = {run.worker for run in self.runs if run.job_id in self.deadly() - {job_id}}
        since, until = self.asked_at[self._op_of[job_id]], min(run.began_at for run in runs)
        return any(
            fault.kind == DEATH and fault.pid in others and since <= fault.began_at <= until for fault in self.faults
        )

    def own_deaths(self) -> list[Fault]:
        """Deaths of processes in which no deadly job had begun. Jobs are told by their text, since nobody may know the
        id."""
        texts = {digest(entry.text) for entry in self.invoked.values() if entry.expected == DIES}
        killed = {run.worker for run in self.runs if run.digest in texts}
        return [fault for fault in self.faults if fault.kind == DEATH and fault.pid not in killed]

    def outputs(self) -> Iterable[tuple[str, Any]]:
        return ((job_id, job["output"]) for job_id, job in self.final_jobs.items() if job["status"] == SUCCEEDS)

    def vanished(self) -> set[str]:
        """Jobs that were accepted, or had been seen, and then were not there."""
        gone = set()
        for job_id, readings in self._readings.items():
            accepted = self.accepted.get(job_id)
            known_at = min(
                [accepted.at if accepted else float("inf"), *(seen.at for seen in readings if seen.status == 200)]
            )
            if any(seen.status in (404, 410) and seen.asked_at >= known_at for seen in readings):
                gone.add(job_id)
        return gone

    def answered(self, copies: Sequence[Invoked]) -> list[Invoked]:
        """Those that were told of a job."""
        return [copy for copy in copies if copy.op in self._accepted_ops]

    def doubled(self) -> int:
        """Keys under which clients were told of more than one job, or more than one lies in the log."""
        told: dict[str, set[str]] = {}
        for job_id, entry in self.accepted.items():
            told.setdefault(self.invoked[entry.op].text, set()).add(job_id)
        logged: dict[str, set[str]] = {}
        for job_id, of_text in (self._facts.requests if self._facts else {}).items():
            logged.setdefault(of_text, set()).add(job_id)
        texts = (copies[0].text for copies in self.copies.values())
        return sum(len(told.get(text, set()) | logged.get(digest(text), set())) > 1 for text in texts)

    def repeated_attempts(self) -> int:
        """Attempts of a job that ran twice. Where the request itself stands twice in the log, both are its first."""
        return sum(count > 1 for (job_id, _), count in self.ran.items() if job_id not in self.repeated)

    def acknowledged(self) -> dict[str, float]:
        """Jobs of which somebody was told that they are canceled, and when first."""
        told: dict[str, float] = {}
        for entry in self.cancels:
            if entry.state == CANCELED:
                told[entry.job_id] = min(entry.at, told.get(entry.job_id, entry.at))
        return told

    def uncanceled(self) -> set[str]:
        """Of those, the ones that ended otherwise: to anybody who asked later, or by the first word of the log."""
        log = self._facts.finals if self._facts else None

        def otherwise(job_id: str, since: float) -> bool:
            later = [seen for seen in self._readings[job_id] if seen.asked_at >= since and seen.status == 200]
            first = [event.status for event in log.get(job_id, ())[:1]] if log is not None else [CANCELED]
            return first != [CANCELED] or any(seen.state != CANCELED for seen in later)

        return {job_id for job_id, told_at in self.acknowledged().items() if otherwise(job_id, told_at)}

    def as_expected(self, job_id: str, job: Job) -> bool:
        """Whoever cancels may come too late, or not."""
        if job["status"] == CANCELED:
            return job_id in self.unwanted
        if self.expected(job_id) == SUCCEEDS:
            return bool(job["status"] == SUCCEEDS)
        return bool(job["status"] == "failed" and job["error"]["code"] == self.expected(job_id))

    def changed(self) -> set[str]:
        """Jobs whose final state did not read the same each time, or that were final and then were not."""
        changed = set()
        for job_id, readings in self._readings.items():
            final = [seen for seen in readings if seen.status == 200 and seen.state in FINAL]
            if not final:
                continue
            first_at = min(seen.at for seen in final)
            if any(_differ(seen.job, final[0].job) for seen in final[1:]) or any(
                seen.status == 200 and seen.state not in FINAL and seen.asked_at >= first_at for seen in readings
            ):
                changed.add(job_id)
        return changed

    def phantoms(self) -> set[str]:
        """Jobs that nobody submitted: not under an id that a client was told, nor as one job of a submission that has
        an unknown end without an id."""
        known = {run.job_id: run.digest for run in self.runs}
        known |= self._facts.requests if self._facts else {}
        known |= dict.fromkeys(self._facts.finals.keys() - known.keys(), "") if self._facts else {}
        nameless = Counter(digest(self.invoked[entry.op].text) for entry in self.unsure if not entry.job_id)
        phantoms = set()
        for job_id in sorted(known.keys() - self._op_of.keys()):
            if nameless[known[job_id]] > 0:
                nameless[known[job_id]] -= 1
            else:
                phantoms.add(job_id)
        return phantoms

    def false_refusals(self) -> int:
        """Submissions that were refused for certain and yet became a job."""
        stored = {run.digest for run in self.runs} | (set(self._facts.requests.values()) if self._facts else set())
        return sum(digest(self.invoked[entry.op].text) in stored for entry in self.refused)

    def internal_errors(self) -> int:
        """Answers 5xx other than 503, which says what to do."""
        reads = sum(seen.status >= 500 and seen.status != 503 for all_of in self._readings.values() for seen in all_of)
        return reads + sum(entry.reason.startswith("500") for entry in self.unsure)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _by_job(readings: Iterable[Seen]) -> dict[str, list[Seen]]:
    grouped: dict[str, list[Seen]] = {}
    for seen in sorted(readings, key=lambda seen: seen.at):
        grouped.setdefault(seen.job_id, []).append(seen)
    return grouped


def _shown(job: Job | None) -> Job:
    return {name: value for name, value in (job or {}).items() if name not in NOT_COMPARED}


def _differ(one: Job | None, other: Job | None) -> bool:
    """Whether two readings do. An answer to a cancellation is marked as one without its output."""
    ours, theirs = _shown(one), _shown(other)
    if WITHOUT_OUTPUT in ours or WITHOUT_OUTPUT in theirs:
        left_out = {"output", WITHOUT_OUTPUT}
        ours = {name: value for name, value in ours.items() if name not in left_out}
        theirs = {name: value for name, value in theirs.items() if name not in left_out}
    return ours != theirs


def _contradicted(jobs: Mapping[str, Job], finals: Mapping[str, Sequence[FinalEvent]]) -> int:
    """Final jobs that are not what their first final event says: the first decides. One without any is no fact."""
    return sum(not _says_the_same(job, finals[job_id][0] if job_id in finals else None) for job_id, job in jobs.items())


def _says_the_same(job: Job, event: FinalEvent | None) -> bool:
    return (
        event is not None
        and job["status"] == event.status
        and (job["attempts"] == event.attempt or event.status == CANCELED)
        and job.get("output") == event.output
        and (job.get("error") or {}).get("code", "") == event.error_code
    )


def _attempts_are_false(job: Job, ran: Collection[tuple[str, int]]) -> bool:
    """For an answer: the run that it names must have been, and must be the one that it says. For a death: nobody can
    have run oftener than is counted. A cancellation says nothing of attempts: some may begin before workers hear."""
    if job["status"] == CANCELED:
        return False
    if job["status"] == SUCCEEDS:
        return (job["id"], job["attempts"]) not in ran or job["output"]["attempt"] != job["attempts"]
    return (job["id"], job["attempts"] + 1) in ran
