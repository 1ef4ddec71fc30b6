"""Each count on the smallest history that has it, and beside it on one that only looks so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from chaos import ledger, timing
from chaos.checker import digest, judge
from chaos.facts import DELAYED, REQUEST_TYPE, Facts, FinalEvent, Gathered
from chaos.history import DEATH, DIES, FINAL, Accepted, Canceled, Entry, Fault, History, Invoked, Refused, Seen, Unsure
from chaos.rules import Least, Rules
from chaos.storms import cancel
from chaos.verdict import Verdict

RULES = Rules(busy_at=1, settle_s=1.0, answer_within_s=3.0, recovery_within_s=5.0)
HOUR = 3600.0


def job(job_id: str = "a", text: str = "text a", attempt: int = 1, **changed: Any) -> dict[str, Any]:
    output = {"job": job_id, "attempt": attempt, "answer": digest(text)}
    return {
        "id": job_id,
        "status": "succeeded",
        "attempts": attempt,
        "finished_at": "1970-01-01T01:00:10Z",
        "output": output,
        **changed,
    }


def seen(read: dict[str, Any] | None, at: float = HOUR + 50, *, job_id: str = "a", status: int = 200) -> Seen:
    return Seen(at, at, job_id, status, read["status"] if read else "queued" if status == 200 else "", read)


def run(job_id: str = "a", text: str = "text a", attempt: int = 1, worker: int = 7, at: float = HOUR + 5) -> str:
    who = f"{job_id} {attempt} {worker + 100} {worker}"
    return f"begin {who} {at} {digest(text)}\nend {who} {at + 1}\n"


def facts(*finals: FinalEvent, requests: dict[str, str] | None = None) -> Facts:
    asked = {"a": digest("text a")} if requests is None else requests
    return Facts(asked, {"a": list(finals or [FinalEvent("succeeded", 1, job()["output"])])})


def buried(log: Facts) -> Facts:
    """With a dead letter of the job."""
    return Facts(log.requests, log.finals, ["a"])


SUBMITTED: Sequence[Entry] = (Invoked(HOUR, "1", "text a"), Accepted(HOUR + 1, "1", "a"))


def verdict(
    *entries: Entry,
    ledger: str = run(),
    finals: Sequence[Seen] = (seen(job()),),
    log: Facts | None = None,
    faults: Sequence[Fault] = (),
    submitted: Sequence[Entry] = SUBMITTED,
) -> Verdict:
    history = History({"submitter": submitted, "reader": entries}, faults)
    return judge(history, ledger, {one.job_id: one for one in finals}, log or facts(), RULES)


def test_a_job_that_went_well_breaks_nothing() -> None:
    assert verdict(seen(job())).broken == {}


def test_an_accepted_job_without_a_final_state_is_lost() -> None:
    assert verdict(finals=[seen(None)]).broken == {"lost": 1}


def test_a_job_that_only_the_log_knows_must_end_too() -> None:
    unsure = (Invoked(HOUR, "1", "text a"), Unsure(HOUR + 1, "1", "a", "503"))
    assert verdict(submitted=unsure, finals=[]).broken == {"lost": 1}
    assert verdict(submitted=unsure).broken == {}


def test_an_unknown_outcome_that_became_nothing_is_no_loss() -> None:
    unsure = (Invoked(HOUR, "1", "text a"), Unsure(HOUR + 1, "1", "a", "503"))
    nothing = Facts({}, {})
    assert verdict(submitted=unsure, finals=[seen(None, status=404)], ledger="", log=nothing).broken == {}


def test_a_submission_whose_client_heard_nothing_is_unknown() -> None:
    asked = (Invoked(HOUR, "1", "text a"),)
    assert verdict(submitted=asked).broken == {}
    assert verdict(submitted=asked).unknown == 1


def test_a_job_that_is_not_there_after_its_202_has_vanished() -> None:
    gone = seen(None, at=HOUR + 3, status=404)
    assert verdict(gone).broken == {"vanished": 1}
    assert verdict(Seen(HOUR + 3, HOUR + 4, "a", 503)).broken == {}


@pytest.mark.parametrize(
    "second",
    [
        seen(job(attempts=2)),
        seen(job(finished_at="1970-01-01T01:00:11Z")),
        seen(job(output={**job()["output"], "more": 1})),
        seen(None, at=HOUR + 60),
    ],
    ids=["attempts", "time", "output", "no longer final"],
)
def test_a_final_job_that_reads_otherwise_later_has_changed(second: Seen) -> None:
    assert verdict(seen(job()), second).changed == 1


def test_a_reading_that_was_under_way_when_the_job_became_final_is_no_change() -> None:
    slow = Seen(HOUR + 40, HOUR + 60, "a", 200, "running")
    assert verdict(seen(job()), slow).broken == {}


def test_the_urls_of_another_replica_are_no_change() -> None:
    assert verdict(seen(job(urls={"self": "x"})), seen(job(urls={"self": "y"}))).broken == {}


def test_the_first_final_event_decides_and_later_ones_are_only_counted() -> None:
    first, second = FinalEvent("succeeded", 1, job()["output"]), FinalEvent("succeeded", 2, job(attempt=2)["output"])
    assert verdict(log=facts(first, second)).broken == {}
    assert verdict(log=facts(first, second)).duplicate_finals == 1
    assert verdict(log=facts(second, first)).broken == {"contradicted": 1}


def test_a_final_state_without_any_final_event_contradicts_the_log() -> None:
    empty = Facts({"a": digest("text a")}, {"b": [FinalEvent("succeeded", 1)]})
    assert verdict(log=empty).contradicted == 1


def test_a_log_without_any_final_event_contradicts_every_final_state() -> None:
    assert verdict(log=Facts({"a": digest("text a")}, {})).broken == {"contradicted": 1}


def test_a_job_that_nobody_submitted_is_a_phantom() -> None:
    ledger = run() + run("b", "text b")
    assert verdict(ledger=ledger).broken == {"phantom": 1}


def test_a_second_job_of_one_submission_is_a_phantom() -> None:
    twice = facts(requests={"a": digest("text a"), "b": digest("text a")})
    finals = [seen(job()), seen(job("b", attempt=1), job_id="b")]
    assert verdict(ledger=run() + run("b"), finals=finals, log=twice).phantom == 1


def test_an_unknown_outcome_without_an_id_explains_one_job_and_not_two() -> None:
    nameless = (*SUBMITTED, Invoked(HOUR, "2", "text b"), Unsure(HOUR + 1, "2", "", "broken off"))
    assert verdict(submitted=nameless, ledger=run() + run("b", "text b")).broken == {}
    ledger = run() + run("b", "text b") + run("c", "text b")
    assert verdict(submitted=nameless, ledger=ledger).broken == {"phantom": 1}


def test_a_failed_job_must_have_been_asked_for() -> None:
    lost = job(status="failed", attempts=3, output=None, error={"code": "worker_lost"})
    log = facts(FinalEvent("failed", 3, None, "worker_lost"))
    poison = (Invoked(HOUR, "1", "text a", "worker_lost"), SUBMITTED[1])
    dead = buried(log)
    assert verdict(finals=[seen(lost)], log=log).broken == {"failed": 1}
    assert verdict(finals=[seen(lost)], log=dead, submitted=poison).broken == {}
    assert verdict(finals=[seen(lost)], log=dead).broken == {"failed": 1, "dead_lettered_good": 1}
    assert verdict(submitted=poison).broken == {"failed": 1}, "poison that succeeds is no poison"


def test_a_poison_that_ran_once_more_than_is_counted_is_seen() -> None:
    lost = job(status="failed", attempts=3, output=None, error={"code": "worker_lost"})
    log = buried(facts(FinalEvent("failed", 3, None, "worker_lost")))
    poison = (Invoked(HOUR, "1", "text a", "worker_lost"), SUBMITTED[1])
    ledger = "".join(run(attempt=attempt, worker=attempt, at=HOUR + 10 * attempt) for attempt in (1, 2, 3, 4))
    deaths = [Fault(DEATH, "worker", worker, HOUR + 10 * worker) for worker in (1, 2, 3)]
    assert verdict(ledger=ledger, finals=[seen(lost)], log=log, submitted=poison, faults=deaths).broken == {
        "false_attempts": 1
    }


def deadly(*attempts: int, said: int = 3, letter: bool = True, struck: bool = False) -> Verdict:
    """Of a job that killed its worker in each of these runs, where three are right. `struck`: before all of them
    another such job killed a worker."""
    lost = job(status="failed", attempts=said, output=None, error={"code": "worker_lost"})
    log = facts(FinalEvent("failed", said, None, "worker_lost"))
    ledger = "".join(run(attempt=one, worker=n, at=HOUR + 10 * n) for n, one in enumerate(attempts, 1))
    submitted: list[Entry] = [Invoked(HOUR, "1", "text a", DIES), SUBMITTED[1]]
    faults: list[Fault] = []
    if struck:
        submitted += [Invoked(HOUR, "2", "text b", DIES), Accepted(HOUR + 1, "2", "b")]
        ledger += run("b", "text b", worker=70, at=HOUR + 2)
        faults += [Fault(DEATH, "worker", 70, HOUR + 3)]
    history = History({"submitter": submitted}, faults)
    return judge(history, ledger, {"a": seen(lost)}, buried(log) if letter else log, Rules(deaths=3))


def test_a_job_that_kills_its_worker_is_handed_out_three_times_and_says_so() -> None:
    assert deadly(1, 2, 3).wrong_deaths == 0
    assert deadly(1, 2, 3).deadly == 1
    assert deadly(1, 2, said=2).wrong_deaths == 1, "too soon"
    assert deadly(1, 2, 3, said=2).wrong_deaths == 1, "told less"
    assert deadly(1, 3).wrong_deaths == 1, "told more"
    assert deadly(1, 2, 2, 3).wrong_deaths == 1, "one uncounted"
    assert deadly(2, 3).wrong_deaths == 1, "one never tried"


def test_of_a_job_that_kills_its_worker_the_first_attempt_may_fall_to_another_such_job() -> None:
    """It is counted before the model has it."""
    assert deadly(2, 3, struck=True).wrong_deaths == 0
    assert deadly(1, 3, struck=True).wrong_deaths == 1
    assert deadly(2, 3, struck=True, said=2).wrong_deaths == 1
    assert deadly(3, struck=True).wrong_deaths == 1


def test_a_job_that_kills_its_worker_becomes_a_dead_letter() -> None:
    assert deadly(1, 2, 3).not_dead_lettered == 0
    assert deadly(1, 2, 3, letter=False).not_dead_lettered == 1


def test_a_process_that_ends_of_itself_breaks_a_promise_and_is_no_fault_of_the_storm() -> None:
    ended = verdict(faults=[Fault(DEATH, "worker", 7, HOUR + 2), Fault("kill", "worker", 8, HOUR + 2)])
    assert ended.broken == {"own_deaths": 1}
    assert ended.faults == 1
    assert ended.busy_faults == 1


def test_a_worker_may_end_by_the_job_that_kills_it_and_by_no_other() -> None:
    """Even where no client knows the job's id."""
    lost = job(status="failed", attempts=1, output=None, error={"code": DIES})
    log = buried(facts(FinalEvent("failed", 1, None, DIES)))
    poison = (Invoked(HOUR, "1", "text a", DIES), Unsure(HOUR + 1, "1", "", "broken off"))

    def died(worker: int) -> Verdict:
        deaths = [Fault(DEATH, "worker", worker, HOUR + 6)]
        return verdict(finals=[seen(lost)], log=log, submitted=poison, faults=deaths)

    assert died(7).own_deaths == 0
    assert died(7).faults == 1
    assert died(8).own_deaths == 1
    assert died(8).faults == 0


def test_an_answer_to_another_input_is_wrong() -> None:
    other = job(text="text b")
    log = facts(FinalEvent("succeeded", 1, other["output"]))
    assert verdict(finals=[seen(other)], log=log).broken == {"wrong_answers": 1}


def test_an_answer_that_names_another_job_was_swapped() -> None:
    other = job(output={**job()["output"], "job": "b"})
    log = facts(FinalEvent("succeeded", 1, other["output"]))
    assert verdict(finals=[seen(other)], log=log).broken == {"swapped": 1}


def test_attempts_that_never_ran_are_false() -> None:
    third = job(attempt=3)
    log = facts(FinalEvent("succeeded", 3, third["output"]))
    assert verdict(finals=[seen(third)], log=log).broken == {"false_attempts": 1}


def test_attempts_that_are_not_those_of_the_answer_are_false() -> None:
    claimed = job(attempts=2)
    log = facts(FinalEvent("succeeded", 2, claimed["output"]))
    ledger = run() + run(attempt=2)
    hit = [Fault("kill", "worker", 7, HOUR + 5.5)]
    assert verdict(finals=[seen(claimed)], log=log, ledger=ledger, faults=hit).broken == {"false_attempts": 1}


def test_an_attempt_that_ran_twice_went_uncounted() -> None:
    hit = [Fault("kill", "worker", 7, HOUR + 5.5)]
    assert verdict(ledger=run() + run(worker=8, at=HOUR + 9), faults=hit).broken == {"repeated_attempts": 1}


def test_a_rerun_wants_a_fault_that_hit_its_worker() -> None:
    ledger = run() + run(attempt=2, worker=8, at=HOUR + 9)
    second = job(attempt=2)
    log = facts(FinalEvent("succeeded", 2, second["output"]))

    def unexplained(*faults: Fault) -> int:
        return verdict(finals=[seen(second)], log=log, ledger=ledger, faults=faults).unexplained_reruns

    assert unexplained() == 1
    assert unexplained(Fault("kill", "worker", 7, HOUR + 5.5)) == 0
    assert unexplained(Fault("kill", "worker", 7, HOUR + 6.5)) == 0, "its completion may not have been on record"
    assert unexplained(Fault("kill", "worker", 7, HOUR + 20)) == 1
    assert unexplained(Fault("kill", "worker", 9, HOUR + 5.5)) == 1
    assert unexplained(Fault("broker hard", "kafka", 0, HOUR + 5.5, HOUR + 8)) == 0


def test_a_worker_that_was_held_may_run_what_another_has_run() -> None:
    """7 held the job as attempt 1, was paused, 8 ran attempt 2, and then 7 went on."""
    ledger = run(attempt=2, worker=8, at=HOUR + 5) + run(attempt=1, worker=7, at=HOUR + 9)
    second = job(attempt=2)
    log = facts(FinalEvent("succeeded", 2, second["output"]))
    paused = [Fault("pause", "worker", 7, HOUR + 2, HOUR + 8.5)]
    assert verdict(finals=[seen(second)], log=log, ledger=ledger, faults=paused).broken == {}
    assert verdict(finals=[seen(second)], log=log, ledger=ledger).broken == {"unexplained_reruns": 1}


def test_a_202_for_what_is_not_in_the_log_is_false() -> None:
    assert verdict(log=facts(requests={})).broken == {"false_202": 1}


def test_a_refusal_of_what_is_in_the_log_is_false() -> None:
    refused = (*SUBMITTED, Invoked(HOUR, "2", "text b"), Refused(HOUR + 1, "2", 503, "unavailable"))
    assert verdict(submitted=refused).broken == {}
    second = job("b", "text b")
    log = Facts(
        {"a": digest("text a"), "b": digest("text b")},
        {**facts().finals, "b": [FinalEvent("succeeded", 1, second["output"])]},
    )
    ledger, finals = run() + run("b", "text b"), [seen(job()), seen(second, job_id="b")]
    assert verdict(submitted=refused, ledger=ledger, finals=finals, log=log).broken == {
        "phantom": 1,
        "false_refusals": 1,
    }


def test_500_is_never_right() -> None:
    assert verdict(Seen(HOUR, HOUR + 1, "a", 500)).broken == {"internal_errors": 1}
    assert verdict(Seen(HOUR, HOUR + 1, "a", 503)).broken == {}


def test_a_503_is_timed_from_the_question() -> None:
    def refused(at: float) -> Verdict:
        return verdict(submitted=(*SUBMITTED, Invoked(HOUR, "2", "text b"), Refused(at, "2", 503, "unavailable")))

    assert refused(HOUR + 2.9).broken == {}
    assert refused(HOUR + 3.1).broken == {"slow_refusals": 1}
    assert refused(HOUR + 3.1).slowest_refusal_s == pytest.approx(3.1)


@pytest.mark.parametrize(
    "ending",
    [
        Accepted(HOUR + 3.5, "2", "b"),
        Unsure(HOUR + 3.5, "2", "b", "503 outcome_unknown"),
        Refused(HOUR + 3.5, "2", 0, "connection_refused"),
        Seen(HOUR, HOUR, "b", 503),
    ],
    ids=["accepted", "unknown", "refused", "none"],
)
def test_whatever_is_asked_while_the_broker_is_away_is_answered_in_time(ending: Entry) -> None:
    def away(until: float) -> Verdict:
        broker = Fault("broker clean", "kafka", 0, HOUR - 1, until)
        return verdict(submitted=(*SUBMITTED, Invoked(HOUR + 0.2, "2", "text b"), ending), faults=[broker])

    assert away(HOUR + 1).slow_answers == 1
    assert away(HOUR + 1).asked_while_away == 2
    assert away(HOUR + 0.1).slow_answers == 0
    assert away(HOUR + 0.1).asked_while_away == 1


def test_each_outage_must_be_followed_by_a_202_in_time() -> None:
    early, late = (
        Fault("broker hard", "kafka", 0, HOUR - 60, HOUR - 50),
        Fault("broker hard", "kafka", 0, HOUR - 9, HOUR),
    )
    assert verdict(faults=[early, late]).slow_recoveries == 1


def test_an_outage_is_over_with_the_first_202_after_it() -> None:
    def after(ended_at: float) -> Verdict:
        return verdict(faults=[Fault("broker hard", "kafka", 0, HOUR - 60, ended_at)])

    assert after(HOUR - 3).broken == {}
    assert after(HOUR - 3).slowest_recovery_s == pytest.approx(4)
    assert after(HOUR - 5).broken == {"slow_recoveries": 1}
    assert after(HOUR + 2).broken == {"slow_recoveries": 1}, "no 202 came at all"


def test_an_outage_counts_as_refused_if_a_503_came_meanwhile() -> None:
    refused = (*SUBMITTED, Invoked(HOUR, "2", "text b"), Refused(HOUR + 1, "2", 503, "unavailable"))
    during = Fault("broker hard", "kafka", 0, HOUR - 1, HOUR + 1.5)
    before = Fault("broker clean", "kafka", 0, HOUR - 20, HOUR - 10)
    assert verdict(submitted=refused, faults=[during, before]).refused_outages == 1


def test_a_fault_is_busy_while_jobs_are_unfinished() -> None:
    times = [HOUR + 0.5, HOUR + 5, HOUR + 11]  # before it was accepted, while it waited, after it had finished
    faults = [Fault("kill", "api", 1, at) for at in times]
    assert verdict(faults=faults).busy_faults == 1


def test_what_was_never_accepted_makes_no_fault_idle() -> None:
    """A job whose client was not told its id ends like any other, and was at no known moment under way."""
    under_way, fault = Accepted(HOUR + 1, "1", "a"), Fault("kill", "api", 1, HOUR + 5)
    ended = {"a": job("a"), "b": job("b", finished_at="1970-01-01T01:00:02Z")}
    assert timing.busy_faults([under_way], ended, [fault], 1) == 1


def test_a_job_is_under_way_until_it_is_final_and_not_at_all_if_it_was_so_before_its_client_knew() -> None:
    fault = Fault("kill", "api", 1, HOUR + 10.5)  # `a` is final since HOUR + 10
    assert timing.busy_faults([Accepted(HOUR + 1, "1", "a")], {}, [fault], 1) == 1
    known_late = [Accepted(HOUR + 11, "1", "a"), Accepted(HOUR + 1, "2", "b")]
    assert timing.busy_faults(known_late, {"a": job("a")}, [fault], 1) == 1
    assert timing.busy_faults(known_late, {"a": job("a")}, [fault], 2) == 0


def test_a_run_that_did_too_little_is_vacuous() -> None:
    little = verdict(faults=[Fault("kill", "api", 1, HOUR + 11)])
    assert little.vacuous(Least(accepted=1, faults=1)) == []
    assert little.vacuous(Least(accepted=2, faults=1, busy_share=0.5, reruns=1)) == [
        "accepted: 1 of at least 2",
        "busy_faults: 0 of at least 0.5",
        "reruns: 0 of at least 1",
    ]


@pytest.mark.parametrize("least", [cancel.LONG, cancel.SHORT], ids=["long", "short"])
def test_a_storm_of_too_few_cancels_is_vacuous(least: Least) -> None:
    did = Verdict(
        accepted=least.accepted,
        faults=least.faults,
        busy_faults=least.faults,
        reruns=least.reruns,
        cancels=least.cancels,
        acknowledged=least.acknowledged,
    )
    assert did.vacuous(least) == []
    wanted = least.cancels
    assert replace(did, cancels=wanted - 1).vacuous(least) == [f"cancels: {wanted - 1} of at least {wanted}"]


def test_the_storm_of_cancels_asks_for_as_many_as_it_promises() -> None:
    assert cancel.LONG.cancels == 5_000
    assert cancel.SHORT.cancels / cancel.SHORT.accepted >= cancel.LONG.cancels / cancel.LONG.accepted


def test_nobody_looked_into_the_log() -> None:
    """The embedded storm hands no facts over; what only the log can tell then counts nothing."""
    history = History({"submitter": SUBMITTED})
    assert judge(history, run(), {"a": seen(job())}, None, RULES).broken == {}


def canceled(state: str = "canceled", at: float = HOUR + 4, status: int = 200) -> Canceled:
    final = ended(state) if state in FINAL else None
    return Canceled(at - 1, at, "a", status, state if status == 200 else "", final if status == 200 else None)


def ended(state: str) -> dict[str, Any]:
    return job(attempt=0, status="canceled", output=None) if state == "canceled" else job()


CANCEL = FinalEvent("canceled", 0)


def test_a_job_that_was_canceled_as_told_breaks_nothing() -> None:
    read = ended("canceled")
    told = verdict(canceled(), seen(read), ledger="", finals=[seen(read)], log=facts(CANCEL))
    assert (told.broken, told.cancels, told.acknowledged) == ({}, 1, 1)


def test_a_result_after_an_acknowledged_cancel_is_seen_in_a_reading_and_in_the_log() -> None:
    read = ended("canceled")
    assert verdict(canceled()).broken["uncanceled"] == 1
    assert verdict(canceled(), seen(job())).broken["uncanceled"] == 1
    log = facts(FinalEvent("succeeded", 1, job()["output"]), CANCEL)
    assert verdict(canceled(), ledger=run(), finals=[seen(read)], log=log).broken["uncanceled"] == 1


def test_an_acknowledged_cancel_that_the_log_does_not_hold_is_none() -> None:
    read = ended("canceled")
    log = Facts({"a": digest("text a")}, {})
    assert verdict(canceled(), ledger="", finals=[seen(read)], log=log).broken["uncanceled"] == 1


@pytest.mark.parametrize("entry", [canceled("succeeded"), canceled("queued"), canceled(status=0), canceled(status=503)])
def test_a_cancel_that_came_too_late_or_was_not_acknowledged_promises_nothing(entry: Canceled) -> None:
    told = verdict(entry)
    assert (told.broken, told.cancels, told.acknowledged) == ({}, 1, 0)


def test_a_job_that_nobody_canceled_has_failed_if_it_is_canceled() -> None:
    read = ended("canceled")
    assert verdict(ledger="", finals=[seen(read)], log=facts(CANCEL)).broken == {"failed": 1}


def test_a_run_that_its_runners_death_for_an_unwanted_job_cut_off_is_explained() -> None:
    unwanted = run("b", at=HOUR + 4)  # ends at HOUR + 5, on the runner of worker 7
    cut = f"begin a 1 107 7 {HOUR + 5.01} {digest('text a')}\n"
    again = run(attempt=2, at=HOUR + 8)
    known = ledger.read_ledger(unwanted + cut + again)
    assert timing.reruns(known, [], 1.0).unexplained == 1
    assert timing.reruns(known, [], 1.0, {"b"}).unexplained == 0
    whole = run(at=HOUR + 5.01)
    assert timing.reruns(ledger.read_ledger(unwanted + whole + again), [], 1.0, {"b"}).unexplained == 1


def copy(op: str, key: str = "k", text: str = "text a") -> Invoked:
    return Invoked(HOUR, op, text, key=key)


COPIES = (copy("1"), copy("2"), Accepted(HOUR + 1, "1", "a"), Accepted(HOUR + 2, "2", "a"))


def test_copies_that_were_told_of_one_job_break_nothing() -> None:
    told = verdict(submitted=COPIES)
    assert (told.broken, told.keys, told.copies) == ({}, 1, 2)


def test_copies_that_were_told_of_two_jobs_are_seen() -> None:
    submitted = (*COPIES[:3], Accepted(HOUR + 2, "2", "b"))
    log = facts(requests={"a": digest("text a"), "b": digest("text a")})
    assert verdict(submitted=submitted, log=log).broken["doubled"] == 1


def test_a_second_job_of_a_key_that_nobody_was_told_of_is_seen_in_the_log() -> None:
    log = facts(requests={"a": digest("text a"), "b": digest("text a")})
    assert verdict(submitted=COPIES, log=log).broken["doubled"] == 1


def test_the_same_text_without_a_key_is_two_jobs() -> None:
    asked = [Invoked(HOUR, op, "text a") for op in "12"]
    submitted: list[Entry] = [*asked, Accepted(HOUR + 1, "1", "a"), Accepted(HOUR + 1, "2", "b")]
    assert "doubled" not in verdict(submitted=submitted).broken


def test_a_first_attempt_runs_twice_only_where_its_request_stands_twice_in_the_log() -> None:
    twice = run() + run(at=HOUR + 7)
    assert verdict(ledger=twice).broken == {"repeated_attempts": 1, "unexplained_reruns": 1}
    log = Facts(facts().requests, facts().finals, repeated=frozenset({"a"}))
    assert verdict(ledger=twice, log=log).broken == {}


@pytest.mark.parametrize(
    ("attempts", "repeated"), [(["", "1"], False), (["", "0", "1"], False), (["", ""], True), (["", "0", "0"], True)]
)
def test_a_request_is_repeated_if_the_same_stands_in_the_log_twice(attempts: list[str], repeated: bool) -> None:
    gathered = Gathered()
    for attempt in attempts:
        delayed = {DELAYED: attempt} if attempt else {}
        gathered.record("a", {"ce_type": REQUEST_TYPE, **delayed}, b'{"text": "text a"}')
    assert (gathered.facts().repeated == {"a"}) == repeated


def test_an_answer_to_a_cancellation_leaves_out_the_output_and_nothing_else() -> None:
    done = {name: value for name, value in job().items() if name != "output"}
    assert verdict(Canceled(HOUR + 3, HOUR + 4, "a", 200, "succeeded", done)).broken == {}
    other = {**done, "attempts": 2}
    assert verdict(Canceled(HOUR + 3, HOUR + 4, "a", 200, "succeeded", other)).broken == {"changed": 1}


def test_an_answer_that_is_none_to_a_cancellation_is_seen() -> None:
    assert verdict(Canceled(HOUR + 3, HOUR + 4, "a", 500)).broken == {"internal_errors": 1}
    assert verdict(Canceled(HOUR + 3, HOUR + 4, "a", 404)).broken == {"vanished": 1}
