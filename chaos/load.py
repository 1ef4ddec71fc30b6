"""The clients: some submit without pause, some read. Each writes what it saw into a log of its own."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from chaos.history import FINAL, SUCCEEDS, Accepted, Canceled, ClientLog, Invoked, Records, Refused, Unsure
from chaos.reading import AFTER_FAILURE_S, BROKEN_OFF, POLL_S, UNANSWERED, read, session

AGAIN_S = 0.5
STUCK_S = 120.0
TURN_S = 0.005
AGAIN_SHARE = 0.25
COPIES = 3
BATCH_JOBS = 20

NOT_SENT = (aiohttp.ClientConnectorError,)


class Wish(Struct, frozen=True):
    """What one job is to do: members of its input beside text and ledger, how it must end, and after how many seconds
    its client cancels it, if at all. `webhook`: the address that is told of it."""

    more: Mapping[str, Any]
    expected: str = SUCCEEDS
    cancel_after_s: float | None = None
    webhook: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """`waiting_at_most`: submitting pauses above this many unfinished jobs, so that a storm tests harm and not a
    growing backlog. `pace_s`: between two submissions of
    one client, on average. `wish` is asked for each job. `token`: the API key that every request brings, if any."""

    wish: Callable[[random.Random], Wish]
    model: str = "oracle"
    submitters: int = 8
    readers: int = 6
    waiting_at_most: int = 200
    pace_s: float = 0.0
    token: str = ""


class Load:
    """Runs until `stop()`. Every request goes to one of `urls` at random."""

    def __init__(self, records: Records, urls: Sequence[str], ledger: Path, rng: random.Random, plan: Plan) -> None:
        self._records = records
        self._urls = urls
        self._ledger = ledger
        self._random = rng
        self._plan = plan
        self._unread: deque[str] = deque()
        self._stopping = asyncio.Event()
        self._moved = asyncio.Event()
        self._sent = 0
        self.accepted: dict[str, None] = {}
        self.unsure: dict[str, None] = {}
        self.final: dict[str, None] = {}

    @property
    def token(self) -> str:
        return self._plan.token

    @property
    def cancels(self) -> int:
        """So many were asked for, and are answered or never will be."""
        return len(self._records.client("cancel").entries)

    @property
    def waiting(self) -> int:
        return len(self.accepted) - len(self.final)

    async def until(self, accepted: float) -> None:
        """Waits until so many jobs were accepted. Raises TimeoutError when for a long time none was."""
        while len(self.accepted) < accepted:
            self._moved.clear()
            async with asyncio.timeout(STUCK_S):
                await self._moved.wait()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        async with session(self._plan.token) as http, asyncio.TaskGroup() as tasks:
            self._tasks, self._http = tasks, http
            submitting = [
                tasks.create_task(self._submit_all(http, self._records.client(f"submit-{number}")))
                for number in range(self._plan.submitters)
            ]
            reading = [
                tasks.create_task(self._read_all(http, self._records.client(f"read-{number}")))
                for number in range(self._plan.readers)
            ]
            await asyncio.wait(submitting)
            self._stopping.set()
            await asyncio.wait(reading)

    async def _submit_all(self, http: aiohttp.ClientSession, log: ClientLog) -> None:
        while not self._stopping.is_set():
            if self.waiting >= self._plan.waiting_at_most:
                await asyncio.sleep(TURN_S)
            elif not await self._submit(http, log):
                await asyncio.sleep(AFTER_FAILURE_S)
            elif self._plan.pace_s:
                await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._plan.pace_s)

    async def _submit(self, http: aiohttp.ClientSession, log: ClientLog) -> bool:
        op, text = self._next()
        wish = self._plan.wish(self._random)
        body: dict[str, Any] = {"model": self._plan.model, "input": self._input(text, wish)}
        if wish.webhook:
            body["webhook"] = {"url": wish.webhook}
        log.append(Invoked(time.time(), op, text, wish.expected))
        ending = await self._post(http, op, body)
        log.append(ending)
        if isinstance(ending, Accepted):
            self._take(ending.job_id)
            if wish.cancel_after_s is not None:
                self._tasks.create_task(self._cancel(http, ending.job_id, wish.cancel_after_s))
        elif isinstance(ending, Unsure) and ending.job_id:
            self.unsure[ending.job_id] = None
        return isinstance(ending, Accepted)

    def _next(self) -> tuple[str, str]:
        """Name and text of one more submission, each like no other's."""
        self._sent += 1
        return str(self._sent), f"{self._sent} {self._random.random()}"

    def _input(self, text: str, wish: Wish) -> Mapping[str, Any]:
        return {"text": text, "ledger": str(self._ledger), **wish.more}

    def _take(self, job_id: str) -> None:
        """A job was accepted: it is there to be read. Not twice, if several were told of it."""
        if job_id not in self.accepted:
            self.accepted[job_id] = None
            self._unread.append(job_id)
        self._moved.set()

    async def _post(
        self, http: aiohttp.ClientSession, op: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Accepted | Refused | Unsure:
        try:
            async with http.post(f"{self._random.choice(self._urls)}/v1/jobs", json=body, headers=headers) as answer:
                document = json.loads(await answer.read())
        except NOT_SENT:
            return Refused(time.time(), op, 0, "connection_refused")
        except BROKEN_OFF as error:
            return Unsure(time.time(), op, "", type(error).__name__)
        if answer.status == 202:
            return Accepted(time.time(), op, document["id"])
        code = document.get("code", "")
        if answer.status < 500 or (answer.status == 503 and code != "outcome_unknown"):
            return Refused(time.time(), op, answer.status, code)
        return Unsure(time.time(), op, document.get("job_id", ""), f"{answer.status} {code}")

    async def submit_copies(self, key: str, copies: int) -> None:
        """One submission, so many times at once and each until it is accepted: as clients do that were told to come
        back, or nothing."""
        text = f"{key} {self._random.random()}"
        body = {"model": self._plan.model, "input": self._input(text, self._plan.wish(self._random))}
        await asyncio.gather(*(self._submit_copy(key, text, body) for _ in range(copies)))

    async def _submit_copy(self, key: str, text: str, body: Mapping[str, Any]) -> None:
        self._sent += 1
        op, log = str(self._sent), self._records.client("copies")
        log.append(Invoked(time.time(), op, text, SUCCEEDS, key))
        until = time.monotonic() + STUCK_S
        while True:
            ending = await self._post(self._http, op, body, {"idempotency-key": key})
            if isinstance(ending, Accepted):
                log.append(ending)
                self._take(ending.job_id)
                return
            again = ending.status in (0, 409, 503) if isinstance(ending, Refused) else ending.reason[:3] != "500"
            if not again or time.monotonic() > until:  # one of the tries before may have been written
                log.append(Unsure(time.time(), op, "", str(getattr(ending, "reason", "") or "refused")))
                return
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * AGAIN_S)

    async def submit_batch(self, jobs: int) -> None:
        """A file of so many jobs and a line that is none, sent until it is accepted; then its results are asked for
        until all are there. Raises TimeoutError, and ValueError for an answer that no patience mends."""
        asked = [self._next() for _ in range(jobs)]
        inputs = [self._input(text, self._plan.wish(self._random)) for _, text in asked]
        lines = [*({"input": one} for one in inputs), {"inptu": "a mistake"}]
        log = self._records.client("batches")
        for op, text in asked:
            log.append(Invoked(time.time(), op, text))
        name = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        file = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        query, headers = {"model": self._plan.model}, {"content-type": "application/x-ndjson"}
        sent = await self._until(202, "put", name, params=query, data=file, headers=headers)
        results = await self._until(200, "get", f"{json.loads(sent)['id']}/results")
        ids = [json.loads(line).get("id", "") for line in results.splitlines()]
        for (op, _), job_id in zip(asked, ids[:jobs], strict=True):  # the last line is no job
            log.append(Accepted(time.time(), op, job_id))
            self._take(job_id)

    async def _until(self, status: int, method: str, batch: str, **more: Any) -> bytes:
        """The body of the first answer with this status."""
        async with asyncio.timeout(STUCK_S):
            while True:
                url = f"{self._random.choice(self._urls)}/v1/batches/{batch}"
                try:
                    async with self._http.request(method, url, **more) as answer:
                        body = await answer.read()
                    if answer.status == status:
                        return body
                    if answer.status not in (202, 409, 503):
                        raise ValueError(f"a batch was answered {answer.status}: {body[:200]!r}")
                except UNANSWERED:  # its process may be down: it is asked again
                    await asyncio.sleep(AFTER_FAILURE_S)
                await asyncio.sleep(self._random.uniform(0.5, 1.5) * AGAIN_S)

    async def submit_others(self, key: str) -> None:
        """What comes otherwise than alone and once: copies under this key, and a batch."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.submit_copies(key, COPIES))
            tasks.create_task(self.submit_batch(BATCH_JOBS))

    async def _cancel(self, http: aiohttp.ClientSession, job_id: str, after_s: float) -> None:
        # The random moment is the experiment: there is no condition to wait for.
        await asyncio.sleep(after_s)
        asked_at, status, document = time.time(), 0, {}
        try:
            async with http.post(f"{self._random.choice(self._urls)}/v1/jobs/{job_id}/cancel") as answer:
                document = json.loads(await answer.read())
                status = answer.status
        except BROKEN_OFF:
            document = {}  # who was not answered knows nothing
        state = str(document.get("status", "")) if status == 200 else ""
        job = document if state in FINAL else None
        self._records.client("cancel").append(Canceled(asked_at, time.time(), job_id, status, state, job))

    async def _read_all(self, http: aiohttp.ClientSession, log: ClientLog) -> None:
        """Unfinished jobs, oldest first and each by one reader, and finished ones again at random."""
        while not self._stopping.is_set():
            if self.final and (not self._unread or self._random.random() < AGAIN_SHARE):
                await self._read(http, log, self._random.choice(list(self.final)[-1000:]), wait_s=0)
            if not self._unread:
                await asyncio.sleep(TURN_S)
                continue
            job_id = self._unread.popleft()
            if not await self._read(http, log, job_id, POLL_S):
                self._unread.append(job_id)

    async def _read(self, http: aiohttp.ClientSession, log: ClientLog, job_id: str, wait_s: int) -> bool:
        """Whether the job is final."""
        seen = await read(http, self._random.choice(self._urls), job_id, wait_s)
        if seen is None:
            await asyncio.sleep(AFTER_FAILURE_S)
            return False
        final = seen.job is not None
        if final or seen.status != 200 or job_id in self.final:  # that a queued job is still queued is no news
            log.append(seen)
        if final:
            self.final[job_id] = None
        return final
