"""Routes about jobs: submit, look, wait, fetch the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from msgspec.structs import replace
from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, REPLAYED, RETRY_SOON, VARY_PREFER, Answer, Header, header
from forebay.api.bodies import parse_json, read_body, read_json_body
from forebay.api.body_budget import LARGE_BODY_BYTES, BodyBudget
from forebay.api.cancel import Canceler
from forebay.api.delete import Deleter
from forebay.api.etags import etag, matches
from forebay.api.events import LAST_EVENT_ID, PING_S, STREAM_S, EventStream, is_over, read_place
from forebay.api.heads import header_value, header_values
from forebay.api.idempotency import HEADER, Key, read_key
from forebay.api.job_writer import JobWriter
from forebay.api.listing import read_listing
from forebay.api.prefer import NONE, WAIT_MAX_S, parse_prefer
from forebay.api.problems import InvalidHeader, InvalidQuery, problem
from forebay.api.queries import refuse_query, said_in_query, wait_in_query, whole
from forebay.api.reading import JobReader, with_metadata
from forebay.api.schemas import JobSubmission, RawSubmission, SimpleSubmission, check, check_query
from forebay.api.submission import WEBHOOK_POINTER, Accepted, Offer, Order, Submitter, order_of
from forebay.api.tenancy import tenant_of
from forebay.core.errors import ForebayError, Gone, InvalidRequest
from forebay.core.event import JobRequest
from forebay.core.job import Job, JobStatus
from forebay.core.payload import JSON
from forebay.core.webhook import WebhookTarget
from forebay.telemetry.metrics import Metrics

log = structlog.get_logger()

_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_FINAL = (JSON_TYPE, NO_STORE)
_PENDING = (JSON_TYPE, NO_STORE, RETRY_SOON)


class _Refusals:
    """Counts what refuses a submission, on its way out."""

    def __init__(self, metrics: Metrics) -> None:
        self._rejected = metrics.jobs_rejected

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ForebayError):
            self._rejected.labels(error.code).inc()


class JobRoutes:
    def __init__(
        self,
        *,
        submitter: Submitter,
        reader: JobReader,
        canceler: Canceler,
        deleter: Deleter,
        writer: JobWriter,
        budget: BodyBudget,
        metrics: Metrics,
    ) -> None:
        self._submitter = submitter
        self._reader = reader
        self._canceler = canceler
        self._deleter = deleter
        self._writer = writer
        self._budget = budget
        self._one_large = asyncio.Lock()
        self._metrics = metrics
        self._refusals = _Refusals(metrics)
        self._counters: dict[tuple[str, str], tuple[Any, Any]] = {}

    # ------------------------------------------------------------------------------------------------------- submit

    async def submit_job(self, request: Request) -> Answer:
        """The input is checked against the model's `input_schema`, its bytes are made durable, the answer is `202`."""
        with self._refusals:
            refuse_query(request, waits=True)
            accepted = await self._accept(request, await read_json_body(request), self._take_job)
        return await self._accepted(request, accepted)

    async def put_job(self, request: Request) -> Answer:
        """As `POST /v1/jobs`, under a UUID of the caller's: however often it is sent, there is one job, and another
        body under the same UUID is refused. The job's id begins with the UUID; either can be asked for."""
        with self._refusals:
            refuse_query(request, waits=True)
            if header_values(request, HEADER):
                raise InvalidHeader("Idempotency-Key", "the UUID in the address is the key")
            tenant, uuid = tenant_of(request), request.path_params["job_id"]
            key = await self._reader.key_of(tenant, uuid)
            accepted = await self._accept(request, await read_json_body(request), self._take_job, key)
        return await self._accepted(request, accepted)

    def _take_job(self, request: Request, body: bytes) -> Offer:
        said = check(JobSubmission, parse_json(body))
        order = replace(order_of(tenant_of(request), said), max_queue_length=said.max_queue_length)
        return self._submitter.take_value(order, said.input)

    async def submit_simple(self, request: Request) -> Answer:
        """As `POST /v1/jobs`, for callers who have nothing to say but a model and an input."""
        with self._refusals:
            refuse_query(request, waits=True)
            accepted = await self._accept(request, await read_json_body(request), self._take_simple)
        return await self._accepted(request, accepted, simple=True)

    def _take_simple(self, request: Request, body: bytes) -> Offer:
        said = check(SimpleSubmission, parse_json(body))
        order = Order(
            tenant=tenant_of(request),
            model=said.model_name,
            webhook=None if said.webhook_url is None else WebhookTarget(url=said.webhook_url),
            max_queue_length=said.max_queue_length,
        )
        try:
            return self._submitter.take_value(order, said.data, input_name="data")
        except InvalidRequest as error:
            if error.pointer == WEBHOOK_POINTER:
                error.pointer = "/webhook_url"
            raise

    async def submit_raw(self, request: Request) -> Answer:
        """An image or a text needs no base64. A query parameter that is not listed here is one of the model's own,
        as its `parameters_schema` says."""
        with self._refusals:
            query: dict[str, list[str]] = {}
            for name, text in request.query_params.multi_items():
                query.setdefault(name, []).append(text)
            if "wait" in query:
                raise wait_in_query(query["wait"][-1])
            ours = {name: query.pop(name)[-1] for name in RawSubmission.model_fields if name in query}
            said = check_query(RawSubmission, ours)
            order = Order(
                tenant=tenant_of(request),
                model=request.path_params["model"],
                version=said.version,
                lane=said.lane.value,
                start_within_s=said.start_within_s,
                run_timeout_s=said.run_timeout_s,
                retain_s=said.retain_s,
                webhook=None if said.webhook_url is None else WebhookTarget(url=said.webhook_url),
                max_queue_length=said.max_queue_length,
            )

            def take(request: Request, body: bytes) -> Offer:
                with said_in_query():
                    return self._submitter.take_body(order, body, header_value(request, b"content-type") or "", query)

            accepted = await self._accept(request, await read_body(request), take)
        return await self._accepted(request, accepted)

    async def _accept(
        self, request: Request, body: bytes, take: Callable[[Request, bytes], Offer], key: Key | None = None
    ) -> Accepted:
        """`take` reads the body: here if it is small, else on a thread, so that others go on. One at a time, since
        parsed JSON takes many times the room of its text, and two threads would be no quicker."""
        key = key or read_key(header_values(request, HEADER))
        if len(body) <= LARGE_BODY_BYTES:
            return await self._submitter.accept(take(request, body), key)
        async with self._one_large:
            offer = await asyncio.to_thread(take, request, body)
        del body
        accepted = await self._submitter.accept(offer, key)
        self._budget.release(request.scope)
        return accepted

    async def _accepted(self, request: Request, answered: Accepted, *, simple: bool = False) -> Answer:
        accepted = answered.request
        if not answered.replayed:
            self._count(accepted)
        prefer = header_values(request, b"prefer")
        preferences = parse_prefer(prefer) if prefer else NONE
        location = f"/status/{accepted.job_id}" if simple else f"/v1/jobs/{accepted.job_id}"
        headers: list[Header] = [JSON_TYPE, NO_STORE, VARY_PREFER, header("location", location)]
        body, final = None, False
        try:
            if preferences.wait_s:
                job = await self._reader.wait(
                    accepted.tenant, accepted.job_id, preferences.wait_s, request.is_disconnected
                )
                body, final = await self._written(job, simple=simple), job.status.final
            elif answered.replayed:
                await self._reader.get(accepted.tenant, accepted.job_id)
        except ForebayError as error:
            if answered.replayed and isinstance(error, Gone):
                raise
            # The job is accepted all the same, and the caller must learn its id.
            log.warning("wait.failed", job=accepted.job_id, code=error.code, error=error.message)
        if answered.replayed:
            headers.append(REPLAYED)
        if not final:
            headers.append(RETRY_SOON)
        applied = preferences.applied(waited=final)
        if applied:
            headers.append(header("preference-applied", applied))
        return Answer(200 if final else 202, body or self._writer.accepted(accepted, simple=simple), headers)

    def _count(self, accepted: JobRequest) -> None:
        labels = (accepted.model, accepted.lane)
        counters = self._counters.get(labels)
        if counters is None:
            submitted = self._metrics.jobs_submitted.labels(*labels)
            counters = self._counters[labels] = (submitted, self._metrics.input_bytes.labels(accepted.model))
        counters[0].inc()
        counters[1].observe(accepted.input.size_bytes)

    # ------------------------------------------------------------------------------------------------------- cancel

    async def cancel_job(self, request: Request) -> Answer:
        """200 with the job in the final state that won: `canceled`, or what it had come to before; this never changes
        any more. 202 only where that is not known within some seconds, which is no promise yet: look again. A job that
        waits ends at once; of one that runs the model is told, and is stopped if it does not heed that."""
        refuse_query(request)
        tenant, job_id = tenant_of(request), request.path_params["job_id"]
        job = await self._canceler.cancel(tenant, job_id, request.is_disconnected)
        body = self._writer.job(job)  # without an output: who may cancel may not read
        return Answer(200, body, _FINAL) if job.status.final else Answer(202, body, _PENDING)

    async def delete_job(self, request: Request) -> Answer:
        """204 once nobody finds the job any more: whoever asks for it is answered 410. Its output and its input are
        deleted, too. Only a job that has ended: 409 for any other. Deleting it again is no mistake."""
        refuse_query(request)
        tenant, job_id = tenant_of(request), request.path_params["job_id"]
        deleted = await self._deleter.delete(tenant, job_id, request.is_disconnected)
        return Answer(204, b"", (NO_STORE,)) if deleted else Answer(202, b"", (NO_STORE, RETRY_SOON))

    # --------------------------------------------------------------------------------------------------------- read

    async def get_job(self, request: Request) -> Answer:
        """Never 404 for a job that was accepted, from the moment of its `202`."""
        return Answer(200, await self._written(await self._job(request)), _FINAL)

    async def watch_job(self, request: Request) -> Answer | EventStream:
        """The states of the job from now on, as server-sent events named `queued`, `started` and after its end, which
        ends the stream; so do five minutes. Beside them `output`, for each chunk that the attempt has emitted which
        runs, or ran last, and `progress`. Whoever comes again with `Last-Event-ID` goes on behind it, at any replica,
        misses no chunk and gets none twice, and is answered 204 if that was the end."""
        refuse_query(request)
        job = await self._reader.get(tenant_of(request), request.path_params["job_id"])
        last = read_place(header_value(request, LAST_EVENT_ID))
        if is_over(job, last):
            return Answer(204, b"", (NO_STORE,))
        changes = self._reader.changes(job, request.is_disconnected, quiet_s=PING_S, within_s=STREAM_S)
        return EventStream(changes, self._reader.partials, self._writer.job, last)

    async def get_status(self, request: Request) -> Answer:
        """The job object, with its id as `request_id` too."""
        return Answer(200, await self._written(await self._job(request), simple=True), _FINAL)

    async def get_output(self, request: Request) -> Answer:
        """The output's bytes with their media type. A job that is final without an output is a 422 with the code
        `job_failed`, `job_canceled` or `job_expired`. It never changes: 304 for whoever has its `ETag`."""
        job = await self._job(request)
        if not job.status.final:
            return Answer(202, self._writer.job(job), _PENDING)
        if job.status is not JobStatus.SUCCEEDED:
            said = job.error.message if job.error else f"The job is {job.status.value}."
            return problem(request.scope, 422, f"job_{job.status.value}", said, job_id=job.id, error=job.error)
        media_type = job.output.media_type if job.output else JSON
        tag = etag(job)
        if matches(header_values(request, b"if-none-match"), tag):
            return Answer(304, b"", (header("etag", tag), NO_STORE))
        headers = (header("content-type", media_type), header("etag", tag), NO_STORE, _NOSNIFF)
        return Answer(200, await self._reader.output(job), headers)

    async def get_result(self, request: Request) -> Answer:
        """200 with the job object in every final state, 202 until then."""
        job = await self._job(request)
        body = await self._written(job, simple=True)
        return Answer(200, body, _FINAL) if job.status.final else Answer(202, body, _PENDING)

    async def list_jobs(self, request: Request) -> Answer:
        """An unknown filter is refused, since one that is ignored would mislead."""
        query, metadata = read_listing(tenant_of(request), request.query_params.multi_items())
        page = await self._reader.list(query, with_metadata(metadata))
        return Answer(200, self._writer.jobs(page), _FINAL)

    async def _job(self, request: Request) -> Job:
        tenant = tenant_of(request)
        job_id = request.path_params.get("job_id") or request.path_params["request_id"]
        if not request.scope["query_string"]:
            return await self._reader.get(tenant, job_id)
        wait_s = whole(_known_query(request, "wait"), "wait", 0, 0, WAIT_MAX_S)
        return await self._reader.wait(tenant, job_id, wait_s, request.is_disconnected)

    async def _written(self, job: Job, *, simple: bool = False) -> bytes:
        is_json = job.output is not None and job.output.media_type == JSON
        return self._writer.job(job, await self._reader.output(job) if is_json else None, simple=simple)


def _known_query(request: Request, *names: str) -> Mapping[str, str]:
    """The query, of each name the last. An unknown name is refused: a misspelt filter that is ignored misleads."""
    query = dict(request.query_params)
    for name in query:
        if name not in names:
            raise InvalidQuery(name, f"not known here; known: {', '.join(names)}")
    return query
