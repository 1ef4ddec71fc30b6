"""Dead letters: jobs that have failed and that nobody has done again. Listed, shown, exported, redriven."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from forebay.api.idempotency import KeyInUse
from forebay.api.job_writer import JobWriter
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX, read_cursor
from forebay.api.problems import InvalidQuery
from forebay.api.queries import time, whole
from forebay.api.reading import LOOK_AT, JobReader
from forebay.api.retrying import INPUT_GONE, Retried, Retrier
from forebay.core.attempts import Attempt
from forebay.core.errors import Gone, NotFound, TooMany, Unavailable
from forebay.core.event import JobRequest
from forebay.core.job import Job, JobStatus
from forebay.core.message import Message
from forebay.core.payload import JSON
from forebay.core.times import to_rfc3339
from forebay.core.wire import decode_request
from forebay.ports.store import JobPage, JobQuery, Place

FILTERS = ("model", "code", "created_after", "created_before")
EXPORT_MOST = 999_999_999
"""More than there are; a whole number in a query has no more digits."""

RATE_DEFAULT = 10
"""Redriven in a second: what failed because something was down shall not bring it down again."""
RATE_MAX = 1000
REDRIVE_FOR_S = 5.0
"""Then an answer says how far it got, and the caller goes on from there: nothing of ours times that out."""
AT_ONCE = 16
"""Requests read from the log in one go; each may have the inline limit of bytes."""


class Wanted(Struct, frozen=True):
    """Dead letters of a tenant; `code` is that of their error, None for any."""

    query: JobQuery
    code: str | None = None


class Redriven(Struct, frozen=True, kw_only=True):
    """What became of those that were looked at. `already` had been done again, of `gone` the input is not kept any
    more, the model of `refused` is not there. `next`: behind which place there may be more; None at the end."""

    jobs: list[Job]
    already: int = 0
    gone: int = 0
    refused: int = 0
    next: Place | None = None


def read_wanted(tenant: str, query: Sequence[tuple[str, str]], *more: str, limit: int = LIMIT_DEFAULT) -> Wanted:
    """The filters of a query string, in which `more` parameters are known too; `limit` is the default. Raises
    InvalidQuery."""
    given = dict(query)
    known = (*FILTERS, "cursor", "limit", *more)
    for name in given:
        if name not in known:
            raise InvalidQuery(name, f"not known here; known: {', '.join(known)}")
    asked = JobQuery(
        tenant=tenant,
        model=given.get("model"),
        status=JobStatus.FAILED,
        created_after=time(given, "created_after"),
        created_before=time(given, "created_before"),
        after=read_cursor(given["cursor"]) if "cursor" in given else None,
        limit=whole(given, "limit", limit, 1, max(limit, LIMIT_MAX)),
        look=LOOK_AT,
    )
    return Wanted(asked, given.get("code"))


class DeadLetters:
    def __init__(
        self,
        *,
        reader: JobReader,
        retrier: Retrier,
        writer: JobWriter,
        draining: asyncio.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._retrier = retrier
        self._writer = writer
        self._draining = draining
        self._monotonic = monotonic

    async def page(self, wanted: Wanted) -> JobPage:
        """The newest first. A page may be short, or empty, and have a next."""

        async def keep(jobs: Sequence[Job]) -> list[Job]:
            fitting = [job for job in jobs if wanted.code in (None, job.error.code if job.error else "")]
            return await self._retrier.never_retried(fitting)

        return await self._reader.list(wanted.query, keep)

    async def get(self, tenant: str, job_id: str) -> Job:
        """A job that has failed, whether it was done again or not. Raises NotFound."""
        job = await self._reader.get(tenant, job_id)
        if job.status is not JobStatus.FAILED:
            raise NotFound(f"the job {job.id} has not failed: it is {job.status.value}", code="no_dead_letter")
        return job

    async def shown(self, job: Job) -> bytes:
        """All that is known of it, but for the bytes of its input."""
        message = (await self._retrier.messages_of([job])).get(job.id)
        return self._writer.job_with(job, await self._told(job, message))

    async def redrive(self, tenant: str, job_id: str) -> Retried:
        """As Retrier.redrive. Raises Gone."""
        return await self._retrier.redrive(await self.get(tenant, job_id))

    async def redrive_many(self, wanted: Wanted, rate: int) -> Redriven:
        """`rate` in a second, the newest first, until all are, or the query's limit, or REDRIVE_FOR_S is over.

        Repeating it is harmless: each is done again once. Raises KeyInUse, TooMany and Unavailable if it could not
        even begin.
        """
        began, done = self._monotonic(), Redriven(jobs=[])
        query, looked_at = wanted.query, 0
        while looked_at < wanted.query.limit:
            query = replace(query, limit=min(AT_ONCE, wanted.query.limit - looked_at))
            page = await self.page(Wanted(query, wanted.code))
            messages = await self._retrier.messages_of(page.jobs)
            for job in page.jobs:
                await asyncio.sleep(max(0.0, began + looked_at / rate - self._monotonic()))
                if looked_at and (self._draining.is_set() or self._monotonic() - began >= REDRIVE_FOR_S):
                    return replace(done, next=query.after)
                try:
                    done = await self._redrive(done, job, messages.get(job.id))
                except (KeyInUse, TooMany, Unavailable):
                    if not looked_at:
                        raise
                    return replace(done, next=query.after)
                looked_at += 1
                query = replace(query, after=(job.created_at, job.id))
            if page.next is None:
                return done
            query = replace(query, after=page.next)
            if self._monotonic() - began >= REDRIVE_FOR_S:
                break
        return replace(done, next=query.after)

    async def _redrive(self, done: Redriven, job: Job, message: Message | None) -> Redriven:
        if message is None:
            return replace(done, gone=done.gone + 1)
        try:
            retried = await self._retrier.redrive(job, decode_request(message))
        except Gone as error:
            if error.code == INPUT_GONE:
                return replace(done, gone=done.gone + 1)
            return replace(done, already=done.already + 1)
        except NotFound:
            return replace(done, refused=done.refused + 1)
        if retried.replayed:
            return replace(done, already=done.already + 1)
        return replace(done, jobs=[*done.jobs, retried.job])

    async def lines(self, wanted: Wanted) -> AsyncIterator[bytes]:
        """Of each the JSON of all that is known of it, its input too, and a newline. Raises Unavailable when the
        service stops, since an end would look like the whole."""
        query, left = wanted.query, wanted.query.limit
        while True:
            page = await self.page(Wanted(replace(query, limit=min(AT_ONCE, left)), wanted.code))
            messages = await self._retrier.messages_of(page.jobs)
            for job in page.jobs:
                if self._draining.is_set():
                    raise Unavailable("the service is stopping")
                yield self._writer.job_with(job, await self._told(job, messages.get(job.id), with_input=True)) + b"\n"
            left -= len(page.jobs)
            if page.next is None or left <= 0:
                return
            query = replace(query, after=page.next)

    async def _told(self, job: Job, message: Message | None, *, with_input: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = {"history": [_attempt(one) for one in job.history]}
        if retries := await self._retrier.retries_of(job):
            told["retried_by"] = retries
        if message is None:
            return told
        request = decode_request(message)
        told["headers"] = dict(message.headers)
        told["input"] = {"media_type": request.input.media_type, "size_bytes": request.input.size_bytes}
        if with_input:
            told["input"] |= await self._input(request)
        return told

    async def _input(self, request: JobRequest) -> Mapping[str, Any]:
        """As JSON, as text, or in base64; nothing where its blob is gone."""
        try:
            data = await self._retrier.input_of(request)
        except Gone:
            return {}
        if request.input.media_type == JSON and _is_json(data):
            return {"value": Raw(data)}
        if request.input.media_type.startswith("text/"):
            try:
                return {"text": data.decode()}
            except UnicodeDecodeError:  # in another charset: as bytes
                pass
        return {"base64": base64.b64encode(data).decode()}


def _attempt(one: Attempt) -> dict[str, Any]:
    told = {
        "attempt": one.attempt,
        "worker": one.worker or None,
        "started_at": None if one.started_at is None else to_rfc3339(one.started_at),
        "finished_at": None if one.finished_at is None else to_rfc3339(one.finished_at),
        "error": one.error,
    }
    return {name: value for name, value in told.items() if value is not None}


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):  # of a foreign record
        return False
    return True
