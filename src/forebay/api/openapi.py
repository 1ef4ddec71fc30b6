"""The OpenAPI document: every route with what it takes and gives, and examples that work with the models at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request

from forebay.api import batch_operations, dead_letter_operations, delivery_operations, endpoint_operations
from forebay.api.answers import JSON_TYPE, Answer
from forebay.api.batch_operations import TAG as _BATCHES
from forebay.api.batch_routes import BatchRoutes
from forebay.api.bounds import add_bounds
from forebay.api.dead_letter_operations import TAG as _DEAD_LETTERS
from forebay.api.dead_letter_routes import DeadLetterRoutes
from forebay.api.delivery_routes import DeliveryRoutes
from forebay.api.describe import (
    EVENTS,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    LAST_EVENT,
    METADATA_FILTER,
    NOT_MODIFIED,
    PREFER,
    PUBLIC,
    SECURITY,
    UUID,
    WAIT,
    WEBHOOK_URL,
    answers,
    components,
    headers,
    json_body,
    means,
    operation,
    path_parameter,
    problems,
    query_parameter,
    raw_body,
)
from forebay.api.docs_page import docs_page
from forebay.api.endpoint_operations import TAG as _WEBHOOKS
from forebay.api.endpoint_routes import EndpointRoutes
from forebay.api.job_routes import JobRoutes
from forebay.api.links import add_links
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX
from forebay.api.model_routes import ModelRoutes
from forebay.api.queue_routes import QueueRoutes
from forebay.api.schemas import QUEUE_LENGTH_MAX
from forebay.api.submission import ModelCatalog
from forebay.core.api_key import Scope
from forebay.core.clocks import ClockLimits
from forebay.core.job import JobStatus
from forebay.core.lanes import Lane
from forebay.core.model import ModelSpec
from forebay.core.payload import JSON, TEXT
from forebay.ports.task import Task

EXAMPLE_MAX_BYTES = 8192
"""A longer example would hide the rest of the page."""
_SIMPLE, _JOBS = "simple door", "jobs"
_QUEUES, _MODELS, _SERVICE = "queues", "models", "service"
_TAGS = (_SIMPLE, _JOBS, _BATCHES, _DEAD_LETTERS, _WEBHOOKS, _QUEUES, _MODELS, _SERVICE)
_DESCRIPTION = """\
Asynchronous model inference: submit an input, get `202` and an id at once; look, wait or come back for the result.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Times are RFC 3339 in UTC. What is not known yet
is absent, never null. Addresses in answers are relative to the service's own.

What cannot be taken as a request of HTTP, or asks for too much, is answered 400, 404, 405, 413, 414, 415 or 431 on any
path; 500 is a fault of the service's."""


class OpenApi:
    """Makes the document and its page once, when they are first asked for."""

    def __init__(
        self, app: FastAPI, catalog: ModelCatalog, task_of: Callable[[str], Task], clocks: ClockLimits
    ) -> None:
        self._app = app
        self._clocks = clocks
        self._models = [(catalog.resolve(name), task_of) for name in sorted(catalog.specs)]
        self._document: dict[str, Any] = {}
        self._page = b""

    def document(self) -> dict[str, Any]:
        if not self._document:
            document = get_openapi(
                title=self._app.title,
                version=self._app.version,
                description=_DESCRIPTION,
                routes=self._app.routes,
                tags=[{"name": name} for name in _TAGS],
            )
            document["components"] = {"schemas": components(), "securitySchemes": SECURITY}
            add_bounds(document, self._clocks)
            add_links(document)
            self._document = document
        return self._document

    async def serve_document(self, request: Request) -> Answer:
        return Answer(200, msgspec.json.encode(self.document()), (JSON_TYPE,))

    async def serve_page(self, request: Request) -> Answer:
        self._page = self._page or docs_page(self.document())
        return Answer(200, self._page, ((b"content-type", b"text/html; charset=utf-8"),))

    async def lead(self, request: Request) -> Answer:
        return Answer(307, b"/docs", ((b"content-type", b"text/plain"), (b"location", b"/docs")))

    def operations(
        self,
        jobs: JobRoutes,
        batches: BatchRoutes,
        dead_letters: DeadLetterRoutes,
        deliveries: DeliveryRoutes,
        queues: QueueRoutes,
        endpoints: EndpointRoutes,
        models: ModelRoutes,
    ) -> list[dict[str, Any]]:
        """The arguments of `app.Route` for every operation."""
        # In the order in which the router tries them: the busiest first.
        return [
            *self._jobs(jobs),
            *self._simple_door(jobs),
            *batch_operations.operations(batches, self._inputs()),
            *dead_letter_operations.operations(dead_letters),
            *delivery_operations.operations(deliveries),
            *_queues(queues),
            *endpoint_operations.operations(endpoints),
            *_models(models),
            *_service(models),
        ]

    def _simple_door(self, jobs: JobRoutes) -> list[dict[str, Any]]:
        request_id = path_parameter("request_id", "As the submission answered it.")
        read = {**problems(404, 410, 422, 503), 200: answers("The job.", "SimpleDocument")}
        pending = {202: answers("Not final yet.", "SimpleDocument", "Retry-After")}
        body = json_body(
            "SimpleSubmission", {name: {"model_name": name, "data": value} for name, value in self._inputs()}
        )
        return [
            operation(
                Scope.SUBMIT,
                "POST",
                "/inference",
                jobs.submit_simple,
                _SIMPLE,
                "Submit an input to a model",
                _submitted("SimpleDocument"),
                parameters=(PREFER, IDEMPOTENCY_KEY),
                body=body,
            ),
            operation(
                Scope.READ,
                "GET",
                "/status/{request_id}",
                jobs.get_status,
                _SIMPLE,
                "Look at a job",
                read,
                parameters=(request_id, WAIT),
            ),
            operation(
                Scope.READ,
                "GET",
                "/result/{request_id}",
                jobs.get_result,
                _SIMPLE,
                "Fetch a job: 200 when it is final, whatever came of it",
                read | pending,
                parameters=(request_id, WAIT),
            ),
        ]

    def _jobs(self, jobs: JobRoutes) -> list[dict[str, Any]]:
        job_id = path_parameter("job_id", "As the submission answered it.")
        model = path_parameter("model", "Name of a model.")
        body = json_body("JobSubmission", {name: {"model": name, "input": value} for name, value in self._inputs()})
        read = {**problems(404, 410, 422, 503), 200: answers("The job.", "JobDocument")}
        output = {
            "description": "The output alone, with its media type.",
            "headers": headers("ETag"),
            "content": {"*/*": {"schema": {}}},
        }
        pending = answers("Not final yet.", "JobDocument", "Retry-After")
        seconds = {"type": "number", "exclusiveMinimum": 0}
        return [
            operation(
                Scope.SUBMIT,
                "POST",
                "/v1/jobs",
                jobs.submit_job,
                _JOBS,
                "Submit a job",
                _submitted("JobDocument"),
                parameters=(PREFER, IDEMPOTENCY_KEY),
                body=body,
            ),
            operation(
                Scope.SUBMIT,
                "PUT",
                "/v1/jobs/{job_id}",
                jobs.put_job,
                _JOBS,
                "Submit a job under a UUID of your own",
                _submitted("JobDocument"),
                parameters=(
                    path_parameter("job_id", "A UUID that no other job of yours has.", **UUID),
                    PREFER,
                ),
                body=body,
            ),
            operation(
                Scope.SUBMIT,
                "POST",
                "/v1/models/{model}/jobs",
                jobs.submit_raw,
                _JOBS,
                "Submit a job whose input is the body as it is",
                _submitted("JobDocument"),
                parameters=(
                    model,
                    PREFER,
                    IDEMPOTENCY_KEY,
                    query_parameter("version", means("version")),
                    query_parameter("lane", means("lane"), type="string", enum=list(Lane), default="normal"),
                    query_parameter("start_within_s", means("start_within_s"), **seconds),
                    query_parameter("run_timeout_s", means("run_timeout_s"), **seconds),
                    query_parameter("retain_s", means("retain_s"), **seconds),
                    WEBHOOK_URL,
                    query_parameter(
                        "max_queue_length",
                        means("max_queue_length"),
                        type="integer",
                        minimum=0,
                        maximum=QUEUE_LENGTH_MAX,
                    ),
                ),
                body=raw_body(self._bodies()),
            ),
            operation(
                Scope.READ,
                "GET",
                "/v1/jobs",
                jobs.list_jobs,
                _JOBS,
                "List jobs, newest first, without their outputs",
                {200: answers("The jobs.", "JobsDocument"), **problems(422, 503)},
                parameters=(
                    query_parameter("model", "Only jobs of this model."),
                    query_parameter("status", "Only jobs in this state.", type="string", enum=list(JobStatus)),
                    query_parameter("created_after", "Accepted later than this.", type="string", format="date-time"),
                    query_parameter("created_before", "Accepted earlier than this.", type="string", format="date-time"),
                    METADATA_FILTER,
                    query_parameter("cursor", "`next_cursor` of an earlier answer."),
                    query_parameter(
                        "limit",
                        "How many.",
                        type="integer",
                        minimum=1,
                        maximum=LIMIT_MAX,
                        default=LIMIT_DEFAULT,
                    ),
                ),
            ),
            operation(
                Scope.READ,
                "GET",
                "/v1/jobs/{job_id}",
                jobs.get_job,
                _JOBS,
                "Look at a job",
                read,
                parameters=(job_id, WAIT),
            ),
            operation(
                Scope.READ,
                "GET",
                "/v1/jobs/{job_id}/result",
                jobs.get_output,
                _JOBS,
                "Fetch the output",
                {**problems(404, 410, 422, 503), 200: output, 202: pending, 304: NOT_MODIFIED},
                parameters=(job_id, WAIT, IF_NONE_MATCH),
            ),
            operation(
                Scope.READ,
                "GET",
                "/v1/jobs/{job_id}/events",
                jobs.watch_job,
                _JOBS,
                "Watch a job",
                {**problems(404, 410, 422, 503), 200: EVENTS, 204: {"description": "The end had been told already."}},
                parameters=(job_id, LAST_EVENT),
            ),
            operation(
                Scope.CANCEL,
                "POST",
                "/v1/jobs/{job_id}/cancel",
                jobs.cancel_job,
                _JOBS,
                "Cancel a job",
                {
                    **problems(404, 410, 422, 503),
                    200: answers("The job, final.", "JobDocument"),
                    202: pending,
                },
                parameters=(job_id,),
            ),
            operation(
                Scope.CANCEL,
                "DELETE",
                "/v1/jobs/{job_id}",
                jobs.delete_job,
                _JOBS,
                "Delete a job",
                {
                    **problems(404, 409, 422, 503),
                    202: {"description": "It will be gone within moments."},
                    204: {"description": "It is gone."},
                },
                parameters=(job_id,),
            ),
        ]

    def _inputs(self) -> Iterator[tuple[str, Any]]:
        """An input that works, by model: the first example of the model's schema."""
        for spec, task_of in self._models:
            for example in _examples(spec, task_of(spec.task)):
                yield spec.name, example
                break

    def _bodies(self) -> dict[str, dict[str, Any]]:
        """By media type and model, a body that works; a file has no value that could be shown."""
        found: dict[str, dict[str, Any]] = {}
        inputs = dict(self._inputs())
        for spec, task_of in self._models:
            media_types = task_of(spec.task).media_types(spec)
            for media_type in media_types:
                found.setdefault(media_type, {})
            best = media_types[0]
            if best not in (JSON, TEXT):
                found[best][spec.name] = {"summary": "The file as it is."}
            elif spec.name in inputs:
                found[best][spec.name] = {"value": inputs[spec.name]}
        return found


def _examples(spec: ModelSpec, task: Task) -> list[Any]:
    examples = task.input_schema(spec).get("examples", [])
    return [example for example in examples if len(msgspec.json.encode(example)) <= EXAMPLE_MAX_BYTES]


def _submitted(model: str) -> dict[int, Any]:
    headers = ("Location", "Preference-Applied", "Idempotency-Replayed")
    return {
        200: answers("The job, final: only with `Prefer: wait=N`.", model, *headers),
        202: answers("Accepted: it survives what `durability` names.", model, *headers, "Retry-After"),
        **problems(400, 404, 409, 410, 413, 415, 422, 429, 503),
    }


def _queues(queues: QueueRoutes) -> list[dict[str, Any]]:
    return [
        operation(
            Scope.READ,
            "GET",
            "/v1/queues",
            queues.list_queues,
            _QUEUES,
            "What waits and runs in each lane of each model",
            {200: answers("The queues.", "QueuesDocument"), **problems(422, 503)},
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/jobs/{job_id}/explain",
            queues.explain_job,
            _QUEUES,
            "Why is a job waiting, and for how long?",
            {200: answers("What is known.", "ExplanationDocument"), **problems(404, 410, 422, 503)},
            parameters=(path_parameter("job_id", "As the submission answered it."),),
        ),
    ]


def _models(models: ModelRoutes) -> list[dict[str, Any]]:
    model = path_parameter("model", "Name of a model.")
    listed = {200: answers("The models.", "ModelsDocument"), **problems(422)}
    shown = {200: answers("The model, with its schemas.", "ModelDetailDocument"), **problems(404, 422)}
    return [
        operation(
            Scope.READ,
            "GET",
            "/v1/models",
            models.list_models,
            _MODELS,
            "List the models and whether they are ready",
            listed,
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/models/{model}",
            models.get_model,
            _MODELS,
            "Show a model",
            shown,
            parameters=(model,),
        ),
    ]


def _service(models: ModelRoutes) -> list[dict[str, Any]]:
    live = {200: answers("The process runs.", "LiveDocument")}
    ready = {200: answers("Jobs can be accepted.", "ReadyDocument"), **problems(503)}
    health = {200: answers("Facts about the service.", "HealthDocument")}
    return [
        operation(PUBLIC, "GET", "/livez", models.livez, _SERVICE, "Does the process run?", live),
        operation(PUBLIC, "GET", "/readyz", models.readyz, _SERVICE, "Can jobs be accepted?", ready),
        operation(PUBLIC, "GET", "/health", models.health, _SERVICE, "What is this service?", health),
    ]
