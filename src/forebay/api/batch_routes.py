"""Routes about batches: upload, look, list, fetch the results, cancel."""

from __future__ import annotations

from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, REPLAYED, RETRY_SOON, Answer, Header, Stream, header
from forebay.api.batch_log import BatchDiffers
from forebay.api.batch_object import write_batch, write_batches, write_upload
from forebay.api.batch_reading import BatchCanceler, BatchReader
from forebay.api.batch_upload import Uploader
from forebay.api.bodies import essence_of
from forebay.api.body_budget import BodyBudget
from forebay.api.heads import header_value, header_values
from forebay.api.idempotency import HEADER, Key, KeyReused, read_key
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX, read_cursor
from forebay.api.problems import CLOSE, TOO_MANY_LINES, InvalidHeader, InvalidQuery, problem_of
from forebay.api.queries import refuse_query, said_in_query, whole
from forebay.api.schemas import BatchDefaults, check_query
from forebay.api.submission import Order
from forebay.api.tenancy import tenant_of
from forebay.core.errors import ForebayError, Unavailable, UnsupportedMedia
from forebay.core.job_batch import LINES_MOST, JobBatch
from forebay.core.reservation import digest_of_key
from forebay.core.webhook import WebhookTarget

LINES = "application/x-ndjson"
LINES_TYPES = (LINES, "application/jsonl", "application/x-jsonlines", "application/json-lines")
PATH = "/v1/batches"

_LINES_TYPE: Header = (b"content-type", LINES.encode())


class BatchRoutes:
    def __init__(self, *, uploader: Uploader, reader: BatchReader, canceler: BatchCanceler, budget: BodyBudget) -> None:
        self._uploader = uploader
        self._reader = reader
        self._canceler = canceler
        self._budget = budget

    async def submit_batch(self, request: Request) -> Answer:
        """One job for each line of the body, a JSON object as `POST /v1/jobs` takes it, but for `max_queue_length`;
        blank lines are passed over. Lines are accepted while the body comes in. One that cannot be a job is rejected
        alone, with its number."""
        defaults = _defaults(request)
        key = read_key(header_values(request, HEADER))
        named = self._reader.new_key(defaults.tenant) if key is None else Key(digest_of_key("batch key", key.digest))
        return await self._upload(request, named, defaults)

    async def put_batch(self, request: Request) -> Answer:
        """As `POST /v1/batches`, under a UUID of the caller's: however often the file is sent, each line is one job.
        Where an upload broke off, the same file goes on; the id of a batch that was begun is taken here, too."""
        defaults = _defaults(request)
        if header_values(request, HEADER):
            raise InvalidHeader("Idempotency-Key", "the UUID in the address is the key")
        key = await self._reader.key_of(defaults.tenant, request.path_params["batch_id"])
        return await self._upload(request, key, defaults)

    async def _upload(self, request: Request, key: Key, defaults: Order) -> Answer:
        media_type = essence_of(header_value(request, b"content-type") or "")
        if media_type not in LINES_TYPES:
            raise UnsupportedMedia(
                f"the body must be JSON Lines: add -H 'content-type: {LINES}', and with curl -T FILE or --data-binary",
                accepted=LINES_TYPES,
            )

        def issue(now: float) -> str:
            return self._reader.issue(defaults.tenant, now)

        def hold(held_bytes: int) -> None:
            if held_bytes:
                self._budget.claim(request.scope, held_bytes)
            else:
                self._budget.release(request.scope)

        try:
            with said_in_query():
                batch = await self._uploader.open(key, issue, defaults)
        except BatchDiffers as error:
            raise _named(request, error) from error
        except Unavailable as error:  # perhaps it was begun
            if not key.job_id:
                raise
            return _broken_off(request, error, key.job_id)
        try:
            done = await self._uploader.upload(batch, defaults, request.stream(), hold)
        except ForebayError as error:
            return _broken_off(request, _named(request, error), batch.id)
        headers = [JSON_TYPE, NO_STORE, RETRY_SOON, header("location", f"{PATH}/{batch.id}")]
        if done.replayed:
            headers.append(REPLAYED)
        return Answer(202, write_upload(done.batch, done.rejected), headers)

    async def get_batch(self, request: Request) -> Answer:
        """How many of its jobs are in which state. `incomplete`: its last line has not come."""
        refuse_query(request)
        return Answer(200, write_batch(await self._batch(request)), (JSON_TYPE, NO_STORE))

    async def list_batches(self, request: Request) -> Answer:
        """Newest first."""
        query = dict(request.query_params)
        _refuse_unknown(query, "cursor", "limit")
        after = read_cursor(query["cursor"]) if "cursor" in query else None
        page = await self._reader.list(tenant_of(request), after, whole(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX))
        return Answer(200, write_batches(page), (JSON_TYPE, NO_STORE))

    async def get_results(self, request: Request) -> Stream:
        """One JSON object for each line, in the order of the file: its number, your `custom_id`, its job's `id` and
        state, and its output or its error. An output that is no JSON is at `output_url`. 202 while the batch is not
        finished: then lines that wait are in it as they are, and lines that are not visible yet are left out."""
        query = dict(request.query_params)
        _refuse_unknown(query, "after_line")
        after = whole(query, "after_line", 0, 0, LINES_MOST)
        batch = await self._batch(request)
        pieces = self._reader.results(batch, after)
        first = await anext(pieces, b"")
        if batch.finished_at is None:
            return Stream(202, first, pieces, (_LINES_TYPE, NO_STORE, RETRY_SOON))
        return Stream(200, first, pieces, (_LINES_TYPE, NO_STORE))

    async def cancel_batch(self, request: Request) -> Answer:
        """No line comes any more, and every job that is not final is canceled. 200 with the batch once all of them are
        final; 202 with `canceling` where that takes longer than some seconds: send it again, which goes on."""
        refuse_query(request)
        tenant, batch_id = tenant_of(request), request.path_params["batch_id"]
        batch = await self._canceler.cancel(tenant, batch_id, request.is_disconnected)
        if batch.finished_at is None:
            return Answer(202, write_batch(batch), (JSON_TYPE, NO_STORE, RETRY_SOON))
        return Answer(200, write_batch(batch), (JSON_TYPE, NO_STORE))

    async def _batch(self, request: Request) -> JobBatch:
        return await self._reader.get(tenant_of(request), request.path_params["batch_id"])


def _defaults(request: Request) -> Order:
    said = check_query(BatchDefaults, dict(request.query_params))
    return Order(
        tenant=tenant_of(request),
        model=said.model,
        version=said.version,
        lane=said.lane.value,
        parameters=said.parameters,
        start_within_s=said.start_within_s,
        run_timeout_s=said.run_timeout_s,
        retain_s=said.retain_s,
        webhook=None if said.webhook_url is None else WebhookTarget(url=said.webhook_url),
    )


def _named(request: Request, error: ForebayError) -> ForebayError:
    """A key in a header that came with another batch is told like one that came with another job."""
    return KeyReused(error.message) if isinstance(error, BatchDiffers) and header_values(request, HEADER) else error


def _broken_off(request: Request, error: ForebayError, batch_id: str) -> Answer:
    limit = LINES_MOST if error.code == TOO_MANY_LINES else None
    refusal = problem_of(request.scope, error, batch_id=batch_id, limit_lines=limit)
    return Answer(refusal.status, refusal.body, (*refusal.headers, CLOSE))  # the rest of the body is not read


def _refuse_unknown(query: dict[str, str], *known: str) -> None:
    for name in query:
        if name not in known:
            raise InvalidQuery(name, f"not known here; known: {', '.join(known)}")
