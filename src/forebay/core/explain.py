"""Why a job waits, and when it may start and finish. Pure: whatever is measured is an argument.

The estimate. Batches of `b` jobs start every `t = b / rate` seconds while there is work. If `n` jobs go before ours,
`k = n // b` batches do, and before the first of them the rest of what runs now. So the wait has

    mean      t * ((1 + v) / 2 + k)                           v: squared coefficient of variation of the service time;
    variance  t * t * (1 / 12 + 11 * v / 12 + (c - 1) / 8 + k * v) + (mean * e) ** 2

the rest of a renewal interval (exact for constant and for exponential times: Feller, vol. 2, XI.4) and `k` whole ones;
with `c` runners also that nobody knows whether they begin in turns or all at once, which was fitted to simulations;
`e` is how much the rate itself may be wrong: `v` over the batches measured, and DRIFT. Quantiles are those of a gamma
distribution with this mean and variance (Wilson and Hilferty 1931, PNAS 17:684), which is none too wide near zero.

What goes before ours: of our lane all that is ahead, of each other lane its share of turns for as long as it has
something (`core/lanes.py`). Jobs that come later to other lanes make it longer, and nobody knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import ceil, sqrt

from msgspec import Struct

from forebay.core.job import Job, JobStatus
from forebay.core.lanes import Lane, weight
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace, together

DRIFT = 0.05
"""A rate is not the same in the next minute as in the last: other load on the machine, other inputs."""

BEHIND_S = 5.0
"""What is visible so much later is worth a word."""

_NOW_S = 1e-6
_Z90 = 1.2815515655446004


class Why(StrEnum):
    """Why a job is where it is. Stable, and more may come."""

    FINAL = "final"
    RUNNING = "running"
    LONGER_THAN_USUAL = "longer_than_usual"
    NOT_VISIBLE_YET = "not_visible_yet"
    STATES_BEHIND = "states_behind"
    BACKEND_AWAY = "backend_away"
    NO_WORKER = "no_worker"
    MODEL_FAILED_TO_LOAD = "model_failed_to_load"
    MODEL_LOADING = "model_loading"
    WORKERS_RESTARTING = "workers_restarting"
    RETRY_DUE = "retry_due"
    JOBS_AHEAD = "jobs_ahead"
    NEXT = "next"


class Cause(Struct, frozen=True):
    code: Why
    message: str


class Band(Struct, frozen=True):
    """Seconds from now: half of all such jobs do it within `p50_s`, nine in ten within `p90_s`."""

    p50_s: float
    p90_s: float


class Standing(Struct, frozen=True, kw_only=True):
    """What one worker says of the model; see `ports.fleet.ModelReport`."""

    status: ModelStatus
    reason: str = ""
    replicas_ready: int = 0
    restarting: bool = False
    away: bool = False
    pace: Pace | None = None


class Surroundings(Struct, frozen=True, kw_only=True):
    """What is known around a job. `ahead`: how many of its lane were accepted before it and wait. `waiting`: jobs of
    its model by lane, and `ages_s` for how long the oldest of them; `running`: jobs of its model. `workers`: those
    heard of lately. `queue_away`: why the queue cannot be reached, "" if it can. `lag_s`: how far what is visible is
    behind."""

    now: float
    ahead: int = 0
    waiting: Mapping[str, int] = {}
    ages_s: Mapping[str, float] = {}
    running: int = 0
    workers: Sequence[Standing] = ()
    queue_away: str = ""
    lag_s: float = 0.0


class Explanation(Struct, frozen=True, kw_only=True):
    """`causes`: the most telling first, at least one. Bands are None where nothing can be said: something stands in the
    way, or no worker has measured anything yet."""

    causes: Sequence[Cause]
    pace: Pace | None = None
    start: Band | None = None
    finish: Band | None = None


def explain(job: Job, around: Surroundings) -> Explanation:
    pace = together([worker.pace for worker in around.workers if worker.pace is not None])
    if job.status.final:
        return Explanation(causes=[Cause(Why.FINAL, f"it is {job.status.value}, and never changes any more")])
    behind = [
        Cause(Why.STATES_BEHIND, f"what is visible is {around.lag_s:.0f} s behind: it may be further than it seems")
    ]
    behind = behind if around.lag_s >= BEHIND_S else []
    if not job.model:
        seen = Cause(Why.NOT_VISIBLE_YET, "it is accepted, and will be visible in a moment")
        return Explanation(causes=[seen, *behind])
    obstacles = _obstacles(around)
    if job.status is JobStatus.RUNNING:
        return _of_running(job, around, pace, [*obstacles, *behind], stuck=bool(obstacles))
    retry = []
    if job.due_at is not None and job.due_at > around.now:
        why = f" after {job.error.code}" if job.error is not None else ""
        retry = [Cause(Why.RETRY_DUE, f"attempt {job.attempts + 1} is due in {job.due_at - around.now:.1f} s{why}")]
    if obstacles:
        return Explanation(causes=[*obstacles, *retry, *behind], pace=pace)
    place = Cause(Why.JOBS_AHEAD, f"{_jobs(around.ahead)} of the lane {job.lane} are ahead of it")
    if around.ahead == 1:
        place = Cause(Why.JOBS_AHEAD, f"1 job of the lane {job.lane} is ahead of it")
    if not around.ahead:
        place = Cause(Why.NEXT, f"it is the next one of the lane {job.lane}")
    start, finish = _bands(job, around, pace) if pace is not None else (None, None)
    return Explanation(causes=[*(retry or [place]), *behind], pace=pace, start=start, finish=finish)


def _of_running(
    job: Job, around: Surroundings, pace: Pace | None, others: Sequence[Cause], *, stuck: bool
) -> Explanation:
    running = Cause(Why.RUNNING, f"attempt {job.attempts} runs")
    if stuck:  # what ran it is gone, or cannot say so: the attempt is not over for anybody yet
        begun = Cause(Why.RUNNING, f"attempt {job.attempts} has begun, and nobody has said how it ended")
        return Explanation(causes=[*others, begun], pace=pace)
    began_at = next((one.started_at for one in job.history if one.attempt == job.attempts), None)
    if pace is None or began_at is None:
        return Explanation(causes=[running, *others], pace=pace)
    since_s = max(0.0, around.now - began_at)
    whole = band(pace.service_s, pace.service_sd_s**2 + (pace.service_s * DRIFT) ** 2)
    if since_s > whole.p90_s:
        longer = Cause(
            Why.LONGER_THAN_USUAL, f"it has run for {since_s:.1f} s; nine in ten are done in {whole.p90_s:.1f} s"
        )
        return Explanation(causes=[running, longer, *others], pace=pace)
    left = Band(max(0.0, whole.p50_s - since_s), whole.p90_s - since_s)
    return Explanation(causes=[running, *others], pace=pace, finish=left)


def _obstacles(around: Surroundings) -> list[Cause]:
    """Why no worker can take the job now, however few are ahead of it."""
    if around.queue_away:  # then nobody knows of the workers either
        return [Cause(Why.BACKEND_AWAY, around.queue_away)]
    if not around.workers:
        return [Cause(Why.NO_WORKER, "no live worker serves this model")]
    ready = [worker for worker in around.workers if worker.status is ModelStatus.READY]
    if ready and all(worker.away for worker in ready):
        text = "its workers cannot reach the queue, the log or the blob store; their log has the reason"
        return [Cause(Why.BACKEND_AWAY, text)]
    if ready:
        return []
    restarting = [worker for worker in around.workers if worker.restarting]
    loading = [worker for worker in around.workers if worker.status is ModelStatus.LOADING]
    if restarting:
        return [Cause(Why.WORKERS_RESTARTING, restarting[0].reason)]
    if loading:
        return [Cause(Why.MODEL_LOADING, "its workers are loading the model")]
    return [Cause(Why.MODEL_FAILED_TO_LOAD, around.workers[0].reason)]


def _bands(job: Job, around: Surroundings, pace: Pace) -> tuple[Band, Band]:
    """When it starts and when it ends."""
    due_s = max(0.0, (job.due_at or 0.0) - around.now)
    ahead = around.ahead
    if due_s:  # it comes back behind those that wait by then
        ahead = max(0, around.waiting.get(job.lane, 0) - 1)
    runners = sum(worker.replicas_ready for worker in around.workers)
    free = max(0, runners - ceil(around.running / pace.batch_size))
    mean, variance = wait(
        turns_before(job.lane, ahead, around.waiting, around.ages_s), pace, runners=runners, free=free
    )
    start = band(mean, variance)
    if due_s:
        start = Band(max(start.p50_s, due_s), max(start.p90_s, due_s))
        mean = max(mean, due_s)
    finish = band(mean + pace.service_s, variance + pace.service_sd_s**2 + (pace.service_s * DRIFT) ** 2)
    return start, finish


def wait(jobs: int, pace: Pace, *, runners: int = 1, free: int = 0) -> tuple[float, float]:
    """Mean, in seconds, and variance of the time until the batch starts before which so many jobs go. `free`: of the
    runners those that run nothing."""
    between_s = pace.batch_size / pace.jobs_per_s
    batches = int(jobs / pace.batch_size) - free
    if batches < 0:
        return 0.0, 0.0
    varied = pace.variation**2
    mean = between_s * ((1 + varied) / 2 + batches)
    wrong = varied / pace.batches + DRIFT**2
    rest = 1 / 12 + 11 * varied / 12 + (max(1, runners) - 1) / 8
    return mean, between_s**2 * (rest + batches * varied) + mean**2 * wrong


def band(mean: float, variance: float) -> Band:
    """The quantiles of a gamma distribution, whose standard deviation is taken for twice its mean at most."""
    if mean < _NOW_S:
        return Band(0.0, 0.0)
    ninth = min(variance / mean**2, 4.0) / 9
    return Band(mean * (1 - ninth) ** 3, mean * (1 - ninth + _Z90 * sqrt(ninth)) ** 3)


def turns_before(lane: str, ahead: int, waiting: Mapping[str, int], ages_s: Mapping[str, float] = {}) -> int:
    """How many jobs of all lanes go before one of `lane` that has `ahead` of its own before it."""
    weights = {name.value: weight(name, ages_s.get(name.value, 0.0)) for name in Lane}
    left = {name: float(count) for name, count in waiting.items() if name in weights and name != lane and count > 0}
    own, mine, total = weights.get(lane, weights[Lane.NORMAL.value]), float(ahead), 0.0
    while left and mine > 0:
        # Until the first lane is empty, each gets turns by its weight.
        rounds = min([mine / own, *(count / weights[name] for name, count in left.items())])
        total += rounds * sum(weights[name] for name in left)
        mine -= rounds * own
        left = {name: count - rounds * weights[name] for name, count in left.items()}
        left = {name: count for name, count in left.items() if count > 1e-9}
    return ahead + round(total)


def _jobs(count: int) -> str:
    return f"{count} jobs"
