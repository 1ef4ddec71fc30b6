"""A batch is accepted while its file comes in, part by part; a copy of the file passes over what is there already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from forebay.api.batch_lines import Line, LineReader, Part, Parts
from forebay.api.batch_log import BatchLog
from forebay.api.bodies import parse_json
from forebay.api.idempotency import Key
from forebay.api.problems import TOO_MANY_LINES, InvalidFields
from forebay.api.schemas import LineSubmission, check
from forebay.api.submission import Offer, Order, Submitter, named, order_of
from forebay.core import crash
from forebay.core.errors import Conflict, ForebayError, InvalidRequest, NotFound, PayloadTooLarge, Unavailable
from forebay.core.event import BatchLine, JobRequest
from forebay.core.job_batch import LINES_MOST, JobBatch, RejectedLine, line_job_id
from forebay.core.reservation import digest_of_key
from forebay.core.wire import canonical_json
from forebay.ports.job_batches import JobBatches
from forebay.telemetry.metrics import Metrics

SHOWN_REJECTED = 100
"""So many rejected lines are told at once; all are among the results."""

PARAMETERS_MAX_BYTES = 64 * 1024
"""Of a line. They travel in a record's header: one line that no queue takes must not stop the others."""

_MESSAGE_CHARS, _POINTER_CHARS, CUSTOM_ID_CHARS = 200, 100, 128


class TooManyLines(InvalidRequest):
    """More lines than a batch may have. Those before are accepted."""

    code = TOO_MANY_LINES


class Uploaded(Struct, frozen=True):
    """The batch as it is at the moment of acceptance. `rejected`: the first of the lines that became no job.
    `replayed`: a copy was complete before."""

    batch: JobBatch
    rejected: list[RejectedLine]
    replayed: bool


class _Read(Struct, frozen=True):
    """What the lines of a part say."""

    offers: list[tuple[BatchLine, Offer]]
    rejected: list[RejectedLine]


class Uploader:
    """`line_most_bytes`: of one line, as of a single job's body. `stopping()`: an upload ends, to go on elsewhere."""

    def __init__(
        self,
        *,
        log: BatchLog,
        submitter: Submitter,
        batches: JobBatches,
        metrics: Metrics,
        line_most_bytes: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._log = log
        self._submitter = submitter
        self._batches = batches
        self._metrics = metrics
        self._line_most_bytes = line_most_bytes
        self._stopping = stopping
        self._one_part = asyncio.Lock()

    async def open(self, key: Key, issue: Callable[[float], str], defaults: Order) -> JobBatch:
        """The batch, without lines. `defaults` are what its lines do not say; its `webhook` is told of the batch, and
        not of them. Raises NotFound for a model that is not known, InvalidRequest for what no line could have,
        BatchDiffers."""
        if defaults.model:
            self._submitter.check(defaults)
        self._submitter.check_webhook(defaults)
        opened = await self._log.open(
            defaults.tenant,
            key,
            issue,
            fingerprint=_fingerprint(defaults),
            model=defaults.model,
            webhooks=await self._submitter.told(defaults),
        )
        return JobBatch(defaults.tenant, opened.job_id, defaults.model, opened.accepted_at)

    async def upload(
        self, batch: JobBatch, defaults: Order, pieces: AsyncIterator[bytes], hold: Callable[[int], None]
    ) -> Uploaded:
        """Accept the lines of a body. `hold(n)` is told how many bytes of it are in this process.

        When this returns every line is a job in the log, or rejected there. Whatever it raises, and whoever dies, the
        lines before are settled, the batch is incomplete, and the same file under the same id goes on with it.
        Raises BatchDiffers; Conflict for a batch that was canceled; TooManyLines; Unavailable.
        """
        reader, parts, rejected = LineReader(self._line_most_bytes), Parts(), list[RejectedLine]()

        async def settle(part: Part) -> JobBatch:
            read = await self._settle(batch, defaults, part)
            rejected.extend(read.rejected[: SHOWN_REJECTED - len(rejected)])
            hold(0)
            return replace(
                batch,
                lines=part.last,
                accepted=batch.accepted + len(read.offers),
                queued=batch.queued + len(read.offers),
                rejected=batch.rejected + len(read.rejected),
            )

        def held(piece: bytes) -> bytes:
            hold(reader.held_bytes + parts.held_bytes + len(piece))
            return piece

        async for line in _lines(reader, (held(piece) async for piece in pieces)):
            too_many = line[0] > LINES_MOST
            if part := parts.end() if too_many else parts.add(line):
                batch = await settle(part)
            if too_many:
                raise TooManyLines(
                    f"a batch has at most {LINES_MOST} lines; these are accepted, and the batch is incomplete: cancel "
                    "it, or complete it by sending only them under its id, and the others as another batch"
                )
        if part := parts.end():
            batch = await settle(part)
        sealed_at, replayed = await self._log.seal(batch.tenant, batch.id, batch.lines)
        return Uploaded(replace(batch, sealed_at=sealed_at, last_at=sealed_at), rejected, replayed)

    async def _settle(self, batch: JobBatch, defaults: Order, part: Part) -> _Read:
        await self._check_wanted(batch)
        crash.reach("api.batch_part")
        async with self._one_part:  # two threads would be no quicker
            read = await asyncio.to_thread(self._read, part, defaults)

        async def publish_jobs(accepted_at: float) -> int:
            await self._submitter.publish([self._request(batch, one, accepted_at) for one in read.offers])
            return len(read.offers)

        replayed = await self._log.settle(
            batch.tenant,
            batch.id,
            (part.first, part.last),
            fingerprint=digest_of_key(_fingerprint(defaults), part.digest()),
            publish_jobs=publish_jobs,
            rejected=tuple(read.rejected),
        )
        if not replayed:
            self._count(read)
        return read

    async def _check_wanted(self, batch: JobBatch) -> None:
        if self._stopping():
            raise Unavailable("the service is stopping")
        seen = await self._batches.batch(batch.tenant, batch.id)
        if seen is not None and seen.canceled_at is not None:
            raise Conflict("the batch was canceled; another one takes another id", code="batch_canceled")

    def _read(self, part: Part, defaults: Order) -> _Read:
        offers: list[tuple[BatchLine, Offer]] = []
        rejected: list[RejectedLine] = []
        for number, line in part.lines:
            if line is not None and not line.strip():
                continue
            custom_id = ""
            try:
                if line is None:
                    raise PayloadTooLarge(
                        f"the line is more than {self._line_most_bytes} bytes", limit_bytes=self._line_most_bytes
                    )
                value = parse_json(line)
                custom_id = _custom_id(value)
                offers.append((BatchLine(batch_id="", number=number, custom_id=custom_id), self._take(value, defaults)))
            except (InvalidRequest, NotFound) as error:
                rejected.append(_rejected(number, custom_id, error))
        return _Read(offers, rejected)

    def _take(self, value: object, defaults: Order) -> Offer:
        said = check(LineSubmission, value)
        if not said.custom_id.isprintable():
            raise InvalidRequest("custom_id holds a character that cannot be shown", pointer="/custom_id")
        order = order_of(defaults.tenant, said)
        unsaid = {
            name: getattr(defaults, name)
            for name in ("model", "version", "lane", "start_within_s", "run_timeout_s", "retain_s")
            if name not in said.model_fields_set
        }
        order = replace(order, **unsaid, parameters={**defaults.parameters, **order.parameters})
        if not order.model:
            raise InvalidRequest("model: name one here, or for all lines in the query: ?model=MODEL", pointer="/model")
        if len(msgspec.json.encode(order.parameters)) > PARAMETERS_MAX_BYTES:
            raise InvalidRequest(f"parameters are more than {PARAMETERS_MAX_BYTES} bytes", pointer="/parameters")
        return self._submitter.take_value(order, said.input)

    def _request(self, batch: JobBatch, one: tuple[BatchLine, Offer], accepted_at: float) -> JobRequest:
        line, (order, payload) = one
        job_id = line_job_id(batch.tenant, batch.id, line.number)
        request = self._submitter.request(order, payload, job_id, accepted_at, named(order))
        return replace(request, line=replace(line, batch_id=batch.id))

    def _count(self, read: _Read) -> None:
        for _, (order, payload) in read.offers:
            self._metrics.jobs_submitted.labels(order.model, order.lane).inc()
            self._metrics.input_bytes.labels(order.model).observe(payload.size_bytes)
        for one in read.rejected:
            self._metrics.jobs_rejected.labels(one.code).inc()


async def _lines(reader: LineReader, pieces: AsyncIterator[bytes]) -> AsyncIterator[Line]:
    async for piece in pieces:
        for line in reader.feed(piece):
            yield line
    for line in reader.end():
        yield line


def _fingerprint(defaults: Order) -> str:
    return digest_of_key("batch", canonical_json(msgspec.to_builtins(defaults)).decode())


def _custom_id(value: object) -> str:
    """To name a line by, should it be rejected."""
    found = value.get("custom_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and len(found) <= CUSTOM_ID_CHARS and found.isprintable() else ""


def _rejected(number: int, custom_id: str, error: ForebayError) -> RejectedLine:
    pointer = error.errors[0][0] if isinstance(error, InvalidFields) else getattr(error, "pointer", "")
    message = error.message.replace("the body", "the line")
    return RejectedLine(
        line=number,
        code=error.code,
        message="".join(char if char.isprintable() else " " for char in message)[:_MESSAGE_CHARS],
        pointer=pointer[:_POINTER_CHARS] if pointer.isprintable() else "",
        custom_id=custom_id,
    )
