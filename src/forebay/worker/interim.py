"""What handlers say while they run, on its way into the log: never in the way of what they run for.

It is told in few events, whatever a handler says: chunks that came together are one event, and of progress only the
newest word counts. It follows the `started` of its attempt, and what was emitted is in the log before the attempt's
outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import structlog
from msgspec import structs

from forebay.core.errors import PayloadTooLarge, Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.payload import JSON, Payload
from forebay.ports.event_log import EventLog
from forebay.telemetry.metrics import Metrics
from forebay.worker import frames
from forebay.worker.hand import JobInHand
from forebay.worker.outcomes import Outcomes

TELL_EVERY_S = 0.1
MOST_JOBS = 64
"""A worker tells of so many jobs at once, TELL_EVERY_S apart: so at most some thousand events in a second, which a log
takes beside those that matter. Where more jobs speak they take turns, and their words wait together."""

PROGRESS_EVERY_S = 0.5
"""Of one job: more often nobody looks."""

EVENT_MAX_BYTES = frames.CHUNK_MAX_BYTES
"""Of the chunks in one event."""

log = structlog.get_logger()


class Said:
    """What was said in one attempt of a job. Its words are numbered as they are taken."""

    def __init__(self, job: JobInHand) -> None:
        self.job = job
        self._progress: float | None = None
        self._words = 0
        self._progress_due_at = 0.0
        self._chunks: list[bytes] = []
        self._taken = 0  # chunks
        self._weight = 0

    @property
    def untold(self) -> bool:
        return bool(self._chunks) or self._progress is not None

    def hear(self, said: frames.Said) -> None:
        """Raises ValueError for more than a runner lets a handler say."""
        self._weight += frames.weight(said.chunks)
        if self._weight > frames.EMITTED_MAX_BYTES:
            raise ValueError(f"chunks of {self._weight} bytes, more than {frames.EMITTED_MAX_BYTES}")
        self._chunks += said.chunks
        if said.progress is not None:
            self._progress = said.progress

    def take_chunks(self) -> tuple[int, list[bytes]] | None:
        """The number of the first and as many as one event holds; None if there are none."""
        count = size = 0
        for chunk in self._chunks:
            size += len(chunk)
            if count and size > EVENT_MAX_BYTES:
                break
            count += 1
        if not count:
            return None
        first, chunks = self._taken, self._chunks[:count]
        del self._chunks[:count]
        self._taken += count
        return first, chunks

    def take_progress(self, now: float) -> tuple[int, float] | None:
        """The number and the newest word, if it is time for one. `now` is monotonic."""
        if self._progress is None or now < self._progress_due_at:
            return None
        progress, self._progress = self._progress, None
        self._progress_due_at = now + PROGRESS_EVERY_S
        self._words += 1
        return self._words, progress


class Talk:
    """What the model says of the jobs of one batch; nothing of it is told before `begun`."""

    def __init__(self, tell: Callable[[Said], None]) -> None:
        self._tell = tell
        self._begun = False
        self.said: dict[int, Said] = {}

    def hear(self, batch: Sequence[JobInHand], frame: frames.Said) -> None:
        """As Said.hear, for the job at that place."""
        said = self.said.get(frame.place)
        if said is None:
            said = self.said[frame.place] = Said(batch[frame.place])
        said.hear(frame)
        if self._begun:
            self._tell(said)

    def begun(self) -> None:
        """That the attempt began is in the log."""
        self._begun = True
        for said in self.said.values():
            self._tell(said)


class Interim:
    """Tells of all batches of a worker, in `run()`; what is left of one when it is over, in `finish()`."""

    def __init__(
        self, model: str, outcomes: Outcomes, events: EventLog, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._model = model
        self._outcomes = outcomes
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._waiting: dict[Said, None] = {}  # who has something to tell; those that were heard last come last
        self._rung = asyncio.Event()
        self._turn = asyncio.Lock()
        self._unsure: list[JobEvent] = []  # nobody knows whether they are in the log

    def talk(self) -> Talk:
        """Of a batch that is about to run."""
        return Talk(self._tell)

    def _tell(self, said: Said) -> None:
        self._waiting.setdefault(said)
        self._rung.set()

    async def run(self) -> None:
        """Until cancelled. A log that is away is tried again, with what was heard meanwhile."""
        while True:
            await self._rung.wait()
            async with self._turn:
                self._unsure = self._unsure or list(self._take())
                pause_s = TELL_EVERY_S
                try:
                    await self._publish(self._unsure)
                except Unavailable as error:
                    log.warning("worker.backend_away", model=self._model, error=error.message)
                    pause_s = error.retry_after_s
            if not self._unsure and not self._waiting:
                self._rung.clear()
            await asyncio.sleep(pause_s)

    async def finish(self, talk: Talk) -> None:
        """Its batch is over: returns when all that was emitted is in the log. Of progress nobody asks any more."""
        if not talk.said:
            return
        async with self._turn:
            for said in talk.said.values():
                self._waiting.pop(said, None)
            while True:
                self._unsure += [output for said in talk.said.values() if (output := self._output(said)) is not None]
                if not self._unsure:
                    return
                await self._outcomes.until_there(lambda: self._publish(self._unsure))

    def _take(self) -> Iterator[JobEvent]:
        now = asyncio.get_running_loop().time()
        for said in list(islice(self._waiting, MOST_JOBS)):
            del self._waiting[said]
            if (output := self._output(said)) is not None:
                yield output
            if (word := said.take_progress(now)) is not None:
                sequence, progress = word
                yield structs.replace(self._event(said, EventKind.PROGRESS), sequence=sequence, progress=progress)
            if said.untold:
                self._waiting[said] = None

    def _output(self, said: Said) -> JobEvent | None:
        taken = said.take_chunks()
        if taken is None:
            return None
        first, chunks = taken
        output = Payload(media_type=JSON, data=b"[" + b",".join(chunks) + b"]")
        return structs.replace(self._event(said, EventKind.OUTPUT), output=output, sequence=first, chunks=len(chunks))

    def _event(self, said: Said, kind: EventKind) -> JobEvent:
        return self._outcomes.event(said.job, kind, said.job.attempt, self._clock())

    async def _publish(self, events: list[JobEvent]) -> None:
        """Empties the list once all are in the log. Raises Unavailable: the same must be published again."""
        try:
            await self._events.publish(events)
        except PayloadTooLarge as error:
            if (
                len(events) == 1
            ):  # its log takes less than usual; what the attempt emits later has a gap: nobody sees it
                log.error("chunks.refused", job=events[0].job_id, model=self._model, limit_bytes=error.limit_bytes)
            else:  # whose it is shows when each goes by itself; repeating the others is harmless
                for event in events:
                    await self._publish([event])
            events.clear()
        for event in events:
            self._metrics.interim_events.labels(self._model, event.kind.value).inc()
        events.clear()
