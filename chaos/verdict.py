"""What a run came to: counts, and whether they hold."""

from __future__ import annotations

from msgspec import Struct

from chaos.rules import Least


class Verdict(Struct, frozen=True, kw_only=True):
    """What happened, then the promises: of those every count must be 0.

    Jobs: `accepted` with 202; `unknown` and `refused` submissions (history.py); `interrupted`: needed more than one
    attempt. `faults`: what the storm did, deaths by a deadly job among them. Runs of the model: all `runs`; `reruns`
    beyond the first of each job; `reruns_bound`: over all faults, the jobs that were in the hands of what was hit.
    `duplicate_finals`: final events after a job's first, which decide nothing. `busy_faults` fell on unfinished jobs;
    `refused_outages`: of the broker's, with a 503 meanwhile; `asked_while_away`: submissions begun in an outage.
    `deadly` jobs killed their worker each time. `overtaken`: of the times that a projector was held, those in which
    another went on with what it had. `cancels` were asked for; `acknowledged`: answered with a job that is canceled.

    `copies` under `keys` were answered with a job. `filled`: of the tables that were compared, derived or an
    operator's, so many had rows. `told`: deliveries that receivers took; `parked`: those that none ever takes.

    lost               accepted, or in the log, and not final in the end
    vanished           404 or 410 for a job that was accepted or had been seen
    unanswered         copies under a key that were never answered with a job, or refused
    doubled            keys that name more than one job, as clients were told or in the log
    uncanceled         canceled, as somebody was told, and yet it ended otherwise, to a later reader or in the log
    changed            two readings of a final job differ, or it was final and then was not
    contradicted       the visible end is not the first final event of the log
    phantom            a job that nobody submitted, or a second one for one submission
    failed             ended otherwise than its input asks for
    swapped            the answer names another job
    wrong_answers      the answer is not the digest of what was sent
    false_attempts     `attempts` is not the number of the run that answered, or a run above it was begun
    repeated_attempts  an attempt of a job ran twice, so a run went uncounted
    unexplained_reruns a job ran again although nothing hit the worker that had it
    false_202          accepted and not in the log
    false_refusals     refused as not stored, and yet a job
    wrong_deaths       a deadly job's attempts, or its runs in the ledger, are not those that it is to have
    own_deaths         a process ended of itself, and no deadly job had begun in it
    differing_rows     a derived row is not the same after a rebuild, or in another kind of store
    touched_owned      a row that is not derived is not the same after a rebuild
    dead_lettered_good a job without fault among the dead letters
    not_dead_lettered  a deadly job that failed and is not among them
    internal_errors    5xx other than 503
    slow_refusals      503 later than the rules allow
    slow_answers       no answer within that time to what was asked while a broker was away
    slow_recoveries    first 202 after an outage later than the rules allow
    untold             jobs whose receiver takes what it is sent at times, and was never told
    wrongly_parked     deliveries that are parked though their receiver takes some, or for another reason than its own
    forged             messages that do not verify with a secret of the tenant's
    unlike             messages under one id that differ
    early              messages of a state that GET did not show yet
    """

    accepted: int = 0
    unknown: int = 0
    refused: int = 0
    runs: int = 0
    reruns: int = 0
    reruns_bound: int = 0
    interrupted: int = 0
    duplicate_finals: int = 0
    faults: int = 0
    busy_faults: int = 0
    refused_outages: int = 0
    asked_while_away: int = 0
    deadly: int = 0
    overtaken: int = 0
    cancels: int = 0
    acknowledged: int = 0
    keys: int = 0
    copies: int = 0
    filled: int = 0
    told: int = 0
    parked: int = 0
    slowest_refusal_s: float = 0.0
    slowest_answer_s: float = 0.0
    slowest_recovery_s: float = 0.0

    lost: int = 0
    vanished: int = 0
    unanswered: int = 0
    doubled: int = 0
    uncanceled: int = 0
    changed: int = 0
    contradicted: int = 0
    phantom: int = 0
    failed: int = 0
    swapped: int = 0
    wrong_answers: int = 0
    false_attempts: int = 0
    repeated_attempts: int = 0
    unexplained_reruns: int = 0
    false_202: int = 0
    false_refusals: int = 0
    wrong_deaths: int = 0
    own_deaths: int = 0
    differing_rows: int = 0
    touched_owned: int = 0
    dead_lettered_good: int = 0
    not_dead_lettered: int = 0
    internal_errors: int = 0
    slow_refusals: int = 0
    slow_answers: int = 0
    slow_recoveries: int = 0
    untold: int = 0
    wrongly_parked: int = 0
    forged: int = 0
    unlike: int = 0
    early: int = 0

    @property
    def broken(self) -> dict[str, int]:
        """The promises that did not hold, with how often."""
        return {name: count for name in PROMISES if (count := getattr(self, name))}

    def vacuous(self, least: Least) -> list[str]:
        """Why the run did too little to prove anything; empty if it did enough."""
        asked = [
            ("accepted", self.accepted, least.accepted),
            ("faults", self.faults, least.faults),
            ("busy_faults", self.busy_faults, least.busy_share * self.faults),
            ("unknown", self.unknown, least.unknown),
            ("reruns", self.reruns, least.reruns),
            ("refused_outages", self.refused_outages, least.refused_outages),
            ("asked_while_away", self.asked_while_away, least.asked_while_away),
            ("deadly", self.deadly, least.deadly),
            ("overtaken", self.overtaken, least.overtaken),
            ("cancels", self.cancels, least.cancels),
            ("acknowledged", self.acknowledged, least.acknowledged),
            ("keys", self.keys, least.keys),
            ("copies", self.copies, least.copies),
            ("filled", self.filled, least.filled),
            ("told", self.told, least.told),
            ("parked", self.parked, least.parked),
        ]
        return [f"{name}: {done} of at least {wanted:g}" for name, done, wanted in asked if done < wanted]

    def __str__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        words = [
            f"{name}={value:.2f}" if isinstance(value, float) else f"{name}={value}" for name, value in shown.items()
        ]
        split = len(words) - len(PROMISES)
        return "  ".join(words[:split]) + "\n" + "  ".join(words[split:])


PROMISES = Verdict.__struct_fields__[Verdict.__struct_fields__.index("lost") :]
