"""Routes about doing jobs again: retries, and dead letters."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, REPLAYED, RETRY_SOON, Answer, Header, Stream, header
from forebay.api.bodies import read_body
from forebay.api.dead_letters import EXPORT_MOST, RATE_DEFAULT, RATE_MAX, DeadLetters, read_wanted
from forebay.api.job_writer import JobWriter
from forebay.api.listing import LIMIT_MAX, cursor_of
from forebay.api.queries import refuse_query, whole
from forebay.api.retrying import Retried, Retrier
from forebay.api.tenancy import tenant_of
from forebay.core.errors import InvalidRequest

_LINES_TYPE: Header = (b"content-type", b"application/x-ndjson")
_FOUND = (JSON_TYPE, NO_STORE)
_encode = msgspec.json.Encoder().encode


class DeadLetterRoutes:
    def __init__(self, *, retrier: Retrier, dead_letters: DeadLetters, writer: JobWriter) -> None:
        self._retrier = retrier
        self._dead_letters = dead_letters
        self._writer = writer

    async def retry_job(self, request: Request) -> Answer:
        """A job that failed, was canceled or expired, once more: a new job, whose `retry_of` is the old one, which
        stays as it is. However often it is sent there is one, until that has ended without success, too."""
        refuse_query(request)
        return self._retried(await self._retrier.retry(tenant_of(request), request.path_params["job_id"]))

    async def redrive_dead_letter(self, request: Request) -> Answer:
        """As a retry, but never more than one: whoever asks again is answered with the job that there is."""
        refuse_query(request)
        return self._retried(await self._dead_letters.redrive(tenant_of(request), request.path_params["job_id"]))

    def _retried(self, retried: Retried) -> Answer:
        job = retried.job
        headers: list[Header] = [JSON_TYPE, NO_STORE, header("location", f"/v1/jobs/{job.id}")]
        if retried.replayed:
            headers.append(REPLAYED)
        if not job.status.final:
            headers.append(RETRY_SOON)
        return Answer(200 if job.status.final else 202, self._writer.job(job), headers)

    async def list_dead_letters(self, request: Request) -> Answer:
        """Failed jobs that nobody has done again."""
        page = await self._dead_letters.page(read_wanted(tenant_of(request), request.query_params.multi_items()))
        return Answer(200, self._writer.jobs(page, "dead_letters"), _FOUND)

    async def get_dead_letter(self, request: Request) -> Answer:
        """The failed job, who ran each of its attempts, when and how it ended, and the headers of its request; whether
        it was done again or not. `headers` and `input` are absent once the log has let go of the request."""
        refuse_query(request)
        job = await self._dead_letters.get(tenant_of(request), request.path_params["job_id"])
        return Answer(200, await self._dead_letters.shown(job), _FOUND)

    async def redrive_dead_letters(self, request: Request) -> Answer:
        """Those that fit, `rate` in a second, the newest first, for at most five seconds: then `next_cursor` says where
        to go on. Each is done again once, however often and wherever it is asked for. What fails anew is a new dead
        letter, and is not met again on the way."""
        if await read_body(request):
            raise InvalidRequest("this takes no body; filters go into the query")
        query = request.query_params.multi_items()
        wanted = read_wanted(tenant_of(request), query, "rate", limit=LIMIT_MAX)
        done = await self._dead_letters.redrive_many(wanted, whole(dict(query), "rate", RATE_DEFAULT, 1, RATE_MAX))
        told: dict[str, Any] = {
            "redriven": len(done.jobs),
            "already": done.already,
            "gone": done.gone,
            "refused": done.refused,
            "jobs": [{"id": job.id, "retry_of": job.retry_of} for job in done.jobs],
        }
        if done.next is not None:
            told["next_cursor"] = cursor_of(done.next)
        return Answer(200, _encode(told), _FOUND)

    async def export_dead_letters(self, request: Request) -> Stream:
        """One JSON object in each line, as when shown, with the input, too; all that fit, unless there is a limit."""
        wanted = read_wanted(tenant_of(request), request.query_params.multi_items(), limit=EXPORT_MOST)
        lines = self._dead_letters.lines(wanted)
        return Stream(200, await anext(lines, b""), lines, (_LINES_TYPE, NO_STORE))
