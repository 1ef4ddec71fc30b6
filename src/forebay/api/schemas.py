"""What the API takes and gives, as pydantic models: the former to check requests, both for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, ValidationError

from forebay.api.problems import InvalidFields, InvalidQuery, pointer_to
from forebay.core.delivery import DeliveryStatus
from forebay.core.explain import Why
from forebay.core.job import JobStatus
from forebay.core.job_batch import BatchStatus
from forebay.core.lanes import Lane
from forebay.core.model import ModelStatus
from forebay.core.webhook import DEFAULT_EVENTS, URL_MOST_CHARS, WebhookEvent

MAX_ERRORS = 20
"""More places than this are not listed: who made so many mistakes made one."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""How many at most is for the service's settings to say (core/clocks.py)."""


def _whole(value: Any) -> Any:
    """`5.0` is an integer in JSON Schema, and in what some clients write."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


QUEUE_LENGTH_MAX = 10**12
QueueLength = Annotated[int, Field(ge=0, le=QUEUE_LENGTH_MAX), BeforeValidator(_whole)]


class Body(BaseModel):
    """Types are taken as they are (no "1" for 1), and a field that this version does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


Url = Annotated[str, Field(min_length=1, max_length=URL_MOST_CHARS)]


class Webhook(Body):
    """Whom a job tells of itself."""

    url: Url = Field(description="Where messages are sent, by POST: an https address, of no private network.")
    events: Annotated[
        tuple[Annotated[WebhookEvent, Field(strict=False)], ...], Field(strict=False, min_length=1, max_length=3)
    ] = Field(
        DEFAULT_EVENTS,
        description="What is told: `started`, `output` (of handlers that emit), `completed` (any final state).",
    )


class JobFields(Body):
    """What makes a job."""

    model: str = Field(description="Name of a model, as `GET /v1/models` lists it.")
    input: Any = Field(description="What the model's `input_schema` says.")
    version: str = Field("", description="One of the model's `versions`; its default version if left out.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="What the model's `parameters_schema` says.")
    lane: Annotated[Lane, Field(strict=False)] = Field(
        Lane.NORMAL,
        description="Where it waits. Of 12 turns high gets 8, normal 3, low 1, when all have work; what is old, more.",
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Yours; given back with the job. At most 16 KiB as JSON."
    )
    start_within_s: Seconds | None = Field(
        None, description="Seconds; a job that has not started by then is `expired`."
    )
    run_timeout_s: Seconds | None = Field(
        None, description="Seconds for one attempt, 1 at least; the model's own limit if left out, and never more."
    )
    retain_s: Seconds | None = Field(
        None, description="Seconds for which the job is kept once it is final; 60 at least. Then it is gone: `410`."
    )
    webhook: Webhook | None = Field(
        None, description="Whom to tell of this job, besides the tenant's endpoints; signed with the tenant's secret."
    )


class JobSubmission(JobFields):
    """A job for `POST /v1/jobs`."""

    max_queue_length: QueueLength | None = Field(
        None, description="Refuse the job with 429 `queue_full` where more than this wait in its lane already."
    )


class LineSubmission(JobFields):
    """One line of a batch. What it leaves out is as the query of the upload says."""

    model: str = Field("", description="Name of a model; `model` of the query if left out.")
    custom_id: str = Field("", max_length=128, description="Yours; given back with the result.")


class BatchDefaults(BaseModel):
    """What the query string of an upload may say: for all lines that do not say it themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = ""
    version: str = ""
    lane: Lane = Lane.NORMAL
    parameters: Json[dict[str, Any]] = Field(default_factory=dict)
    start_within_s: Seconds | None = None
    run_timeout_s: Seconds | None = None
    retain_s: Seconds | None = None
    webhook_url: Url | None = None


class SimpleSubmission(Body):
    """A job for `POST /inference`."""

    model_name: str = Field(description="Name of a model, as `GET /v1/models` lists it.")
    data: Any = Field(description="What the model's `input_schema` says.")
    webhook_url: Url | None = Field(None, description="An https address that is called once the job is final.")
    max_queue_length: QueueLength | None = Field(
        None, description="Refuse the job with 429 `queue_full` where more than this wait in its lane already."
    )


class RawSubmission(BaseModel):
    """What the query string of `POST /v1/models/{model}/jobs` may say besides the model's own parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = ""
    lane: Lane = Lane.NORMAL
    start_within_s: Seconds | None = None
    run_timeout_s: Seconds | None = None
    retain_s: Seconds | None = None
    webhook_url: Url | None = None
    max_queue_length: QueueLength | None = None


class Document(BaseModel):
    """Only described here, never built: answers are written by msgspec."""

    model_config = ConfigDict(protected_namespaces=())


class JobMetrics(Document):
    queue_s: float | None = Field(None, description="From acceptance to the start of the deciding attempt.")
    predict_s: float | None = Field(None, description="Inference of the batch in which the job ran.")
    batch_size: int | None = Field(None, description="Jobs in that batch.")


class JobError(Document):
    code: str = Field(description="Stable.")
    message: str
    retryable: bool


class JobUrls(Document):
    """Relative to the service's address (RFC 3986 section 4.2)."""

    self: str
    result: str
    events: str
    cancel: str


class JobBatchLine(Document):
    id: str
    line: int = Field(description="From 1.")
    custom_id: str | None = None


class JobDocument(Document):
    """The job object, everywhere the same. What is not known yet is absent, never null."""

    id: str
    model: str | None = None
    version: str | None = Field(None, description="The version asked for, then the one that ran.")
    status: JobStatus
    lane: Lane | None = None
    attempts: int = Field(description="Attempts begun; 0 while none has.")
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    started_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    finished_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    progress: float | None = Field(
        None, ge=0, le=1, description="How far the attempt says that it is, while one runs that says so."
    )
    metrics: JobMetrics | None = None
    output: Any = Field(
        None,
        description="The model's answer, present if and only if the job succeeded with JSON; else see urls.result.",
    )
    error: JobError | None = None
    retry_of: str | None = Field(None, description="The job that this one does again.")
    batch: JobBatchLine | None = Field(None, description="The batch that the job is a line of.")
    metadata: dict[str, Any] | None = None
    durability: Literal["replicated", "flushed", "process", "memory"] = Field(
        description="What an accepted job survives: see /health."
    )
    urls: JobUrls


class SimpleDocument(JobDocument):
    """The job object, with its id under the simple door's name as well."""

    request_id: str


class OutputDocument(Document):
    """A server-sent event named `output`."""

    chunk: Any = Field(description="As the handler emitted it; bytes as `base64` in an object.")
    attempt: int = Field(description="A chunk of a later attempt than the last begins anew.")
    index: int = Field(description="Of the chunk in its attempt, from 0.")


class ProgressDocument(Document):
    """A server-sent event named `progress`."""

    progress: float = Field(ge=0, le=1)


class JobsDocument(Document):
    jobs: list[JobDocument] = Field(description="Newest first, without outputs.")
    next_cursor: str | None = Field(
        None, description="Where to go on. A page may be short, or empty, and have one; there is none at the end."
    )


class DeadLettersDocument(Document):
    dead_letters: list[JobDocument] = Field(description="Newest first.")
    next_cursor: str | None = Field(
        None, description="Where to go on. A page may be short, or empty, and have one; there is none at the end."
    )


class AttemptDocument(Document):
    attempt: int
    worker: str | None = None
    started_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    finished_at: str | None = Field(
        None,
        description="Absent where nobody said how it ended: worker or runner died, or the batch ran again.",
        json_schema_extra={"format": "date-time"},
    )
    error: JobError | None = None


class InputDocument(Document):
    media_type: str
    size_bytes: int


class ExportedInputDocument(InputDocument):
    """With one of these, unless its blob is gone."""

    value: Any = Field(None, description="Of JSON.")
    text: str | None = Field(None, description="Of a text.")
    base64: str | None = Field(None, description="Of anything else.")


class DeadLetterDocument(JobDocument):
    history: list[AttemptDocument] = Field(description="The newest 20 attempts, the oldest first.")
    retried_by: list[str] | None = Field(None, description="The jobs that do it again, the oldest first.")
    headers: dict[str, str] | None = Field(
        None, description="Of the request's record in the log; absent once that is no longer kept, as `input` is."
    )
    input: InputDocument | None = None


class ExportedDeadLetterDocument(DeadLetterDocument):
    input: ExportedInputDocument | None = None


class RetryDocument(Document):
    id: str
    retry_of: str


class RedrivenDocument(Document):
    redriven: int = Field(description="Jobs submitted by this call.")
    already: int = Field(description="Done again meanwhile by somebody else.")
    gone: int = Field(description="Their input is no longer kept.")
    refused: int = Field(description="Their model is not there.")
    jobs: list[RetryDocument] = Field(description="Those submitted.")
    next_cursor: str | None = Field(None, description="Where to go on; absent at the end.")


class TryDocument(Document):
    number: int = Field(description="From 1.")
    at: str = Field(json_schema_extra={"format": "date-time"})
    status: int | None = Field(None, description="Of the receiver's answer; absent if there was none.")
    latency_s: float
    code: str | None = Field(None, description="What went wrong; absent if nothing did.")
    message: str | None = None


class DeliveryDocument(Document):
    id: str = Field(description="The `webhook-id`: the same at every try.")
    job_id: str | None = None
    batch_id: str | None = Field(None, description="In place of `job_id`, for what tells of a batch.")
    type: str = Field(description="What is told, such as `job.succeeded`.")
    endpoint: str | None = Field(None, description="Of the tenant's; or `url`, which the job named.")
    url: str | None = None
    status: DeliveryStatus
    reason: str | None = Field(None, description="Why it is parked.")
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    next_try_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    tries_total: int
    tries: list[TryDocument] = Field(description="The newest.")


class DeliveryDetailDocument(DeliveryDocument):
    payload: dict[str, Any] = Field(description="What is sent.")


class DeliveriesDocument(Document):
    deliveries: list[DeliveryDocument]
    next_cursor: str | None = Field(None, description="Absent at the end.")


class RedeliveredDocument(Document):
    asked: int = Field(description="Deliveries that are sent again.")
    next_cursor: str | None = Field(None, description="Where to go on; absent at the end.")


class BatchCounts(Document):
    total: int = Field(description="Lines that hold something: jobs and mistakes.")
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int
    expired: int
    rejected: int = Field(description="Lines that became no job.")


class BatchUrls(Document):
    """Relative to the service's address (RFC 3986 section 4.2)."""

    self: str
    results: str
    cancel: str


class LineError(Document):
    code: str = Field(description="Stable.")
    message: str
    retryable: bool | None = Field(None, description="Of a job's error.")
    pointer: str | None = Field(None, description="Of a rejected line: JSON pointer into it.")


class RejectedLine(Document):
    line: int
    custom_id: str | None = None
    error: LineError


class BatchDocument(Document):
    id: str
    model: str | None = Field(None, description="Of the lines that name none.")
    status: BatchStatus
    counts: BatchCounts
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    finished_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    urls: BatchUrls


class UploadDocument(BatchDocument):
    rejected: list[RejectedLine] | None = Field(
        None, description="The first 100 lines that became no job; all of them are among the results."
    )


class BatchesDocument(Document):
    batches: list[BatchDocument] = Field(description="Newest first.")
    next_cursor: str | None = Field(None, description="Where to go on; there is none at the end.")


class LineDocument(Document):
    """One line of a batch's results."""

    line: int = Field(description="Its number in the file, from 1.")
    custom_id: str | None = None
    id: str | None = Field(None, description="Of its job.")
    status: Literal["queued", "running", "succeeded", "failed", "canceled", "expired", "rejected"]
    output: Any = Field(None, description="If the job succeeded with JSON.")
    media_type: str | None = Field(None, description="Of an output that is no JSON.")
    output_url: str | None = Field(None, description="Where that output is.")
    error: LineError | None = None


class ModelDocument(Document):
    name: str
    version: str | None = Field(None, description="The default version.")
    versions: list[str] = Field(description="Those that can be asked for: the default version only, for now.")
    status: ModelStatus
    reason: str | None = Field(None, description="Why it is not ready.")
    task: str | None = None
    runtime: str | None = None
    description: str | None = None


class ModelDetailDocument(ModelDocument):
    replicas: int | None = None
    batching: dict[str, Any] | None = None
    retry: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    labels: list[str] | None = None
    media_types: list[str] | None = Field(None, description="What a raw body may be.")
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    parameters_schema: dict[str, Any] | None = None


class ModelsDocument(Document):
    models: list[ModelDocument]


class QueueDocument(Document):
    """A lane of a model, over all tenants."""

    model: str
    lane: str
    waiting: int = Field(description="Jobs that are queued, those that wait for their next attempt included.")
    running: int
    oldest_s: float | None = Field(None, description="For how long the oldest that waits has done so.")
    workers: int = Field(description="Workers that have the model ready.")
    max_queue_length: int | None = Field(None, description="So many may wait; absent where there is no limit.")
    rate_per_s: float | None = Field(None, description="Jobs of this lane ended per second, over the last minute.")


class QueuesDocument(Document):
    queues: list[QueueDocument]


class Cause(Document):
    code: Why = Field(description="Stable; later versions may know more.")
    message: str


class ExpectedTime(Document):
    """Of all such jobs half do it by `p50`, nine in ten by `p90`; in seconds from now, and as a time."""

    p50_s: float
    p90_s: float
    p50_at: str = Field(json_schema_extra={"format": "date-time"})
    p90_at: str = Field(json_schema_extra={"format": "date-time"})


class ExplanationDocument(Document):
    """Why a job is where it is."""

    id: str
    model: str | None = None
    lane: str | None = None
    status: JobStatus
    position: int | None = Field(None, description="In its lane, of all tenants; 1 is the next.")
    position_exact: bool | None = Field(
        None, description="False: an estimate, since the lane has several parts (on Kafka), or is very long."
    )
    waiting: int | None = Field(None, description="Jobs in its lane.")
    rate_per_s: float | None = Field(None, description="Jobs of the model that its workers end in a second of work.")
    retry_at: str | None = Field(
        None, description="Not before then its next attempt begins.", json_schema_extra={"format": "date-time"}
    )
    expected_start: ExpectedTime | None = None
    expected_finish: ExpectedTime | None = None
    causes: list[Cause]


class ModelState(Document):
    name: str
    version: str | None = None
    status: ModelStatus
    reason: str | None = None


class ReadyDocument(Document):
    status: Literal["ready"]
    models: list[ModelState]


class HealthDocument(Document):
    status: Literal["ok"]
    version: str
    durability: str
    queue: str | None = None
    store: str | None = None
    blobs: str | None = None
    models: list[ModelState]


class LiveDocument(Document):
    status: Literal["ok"]


class ProblemPlace(Document):
    pointer: str | None = Field(None, description="JSON pointer into the body, as a URI fragment: #/input/0.")
    parameter: str | None = Field(None, description="Or a query parameter.")
    header: str | None = Field(None, description="Or a header.")
    detail: str


class Problem(Document):
    """RFC 9457. Read `code`: it is stable."""

    title: str
    status: int
    code: str
    detail: str
    instance: str
    request_id: str | None = None
    errors: list[ProblemPlace] | None = None
    known: list[str] | None = Field(None, description="Names that are known, where one was not.")
    accepted: list[str] | None = Field(None, description="Media types that are taken.")
    limit_bytes: int | None = None
    retry_after_s: float | None = None
    job_id: str | None = None
    batch_id: str | None = Field(None, description="The batch that was begun; the same file goes on under this id.")
    limit_lines: int | None = None
    error: JobError | None = Field(None, description="Why the job failed.")
    models: list[ModelState] | None = Field(
        None, description="What is known of the models while the service is not ready."
    )


SubmissionT = TypeVar("SubmissionT", bound=Body)
QueryT = TypeVar("QueryT", bound=BaseModel)


def check(kind: type[SubmissionT], value: Any) -> SubmissionT:
    """`value` as a submission. Raises InvalidFields naming every place that is wrong, at most MAX_ERRORS."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    places = [(pointer_to(fault["loc"]), _in_words(fault["type"], fault["msg"], fault["loc"])) for fault in faults]
    raise InvalidFields("; ".join(detail for _, detail in places[:3]), places[:MAX_ERRORS])


def check_query(kind: type[QueryT], query: Mapping[str, str]) -> QueryT:
    """`query` as what it says. Raises InvalidQuery for the first parameter that is wrong."""
    try:
        return kind.model_validate(query)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    raise InvalidQuery(str(fault["loc"][0]), fault["msg"])


def _in_words(kind: str, message: str, path: tuple[str | int, ...]) -> str:
    if kind == "extra_forbidden":
        return f"{path[-1]!r} is not a field that this version of Forebay knows"
    if kind == "missing":
        return f"{path[-1]!r} is required"
    if kind == "model_type":
        return "the body must be a JSON object"
    return f"{path[-1]}: {message[0].lower()}{message[1:]}" if path else message
