"""The API as an ASGI application, made from ports and plain values. Only `assembly` knows which adapters they are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

import forebay
from forebay.api.audience import Audience
from forebay.api.back_pressure import Bounds
from forebay.api.batch_log import BatchLog
from forebay.api.batch_reading import BatchCanceler, BatchReader
from forebay.api.batch_routes import PATH as BATCHES_PATH
from forebay.api.batch_routes import BatchRoutes
from forebay.api.batch_upload import Uploader
from forebay.api.body_budget import BODY_BUDGET_BYTES, BodyBudget
from forebay.api.cancel import Canceler
from forebay.api.dead_letter_routes import DeadLetterRoutes
from forebay.api.dead_letters import DeadLetters
from forebay.api.delete import Deleter
from forebay.api.deliveries import Deliveries
from forebay.api.delivery_routes import DeliveryRoutes
from forebay.api.describe import PUBLIC, Public
from forebay.api.edge import Edge
from forebay.api.endpoint_routes import EndpointRoutes
from forebay.api.explaining import Explainer
from forebay.api.gate import Gate
from forebay.api.idempotency import Keeper
from forebay.api.job_routes import JobRoutes
from forebay.api.job_writer import JobWriter
from forebay.api.metering import Meter
from forebay.api.model_routes import ModelRoutes
from forebay.api.openapi import OpenApi
from forebay.api.probe import QueueProbe
from forebay.api.problems import problem_of, problem_of_status
from forebay.api.queue_routes import QueueRoutes
from forebay.api.reading import JobReader
from forebay.api.retrying import Retrier
from forebay.api.submission import ModelCatalog, Submitter
from forebay.api.tenancy import set_tenant
from forebay.core.api_key import Scope
from forebay.core.clocks import ClockLimits
from forebay.core.errors import ForebayError
from forebay.core.ids import IdMint
from forebay.core.quota import NO_QUOTA, Quota
from forebay.ports.api_keys import ApiKeys
from forebay.ports.blobs import BlobStore
from forebay.ports.cancellations import Cancellations
from forebay.ports.event_log import EventLog
from forebay.ports.fleet import Fleet
from forebay.ports.queue import Queue
from forebay.ports.quotas import Quotas
from forebay.ports.store import ResultStore
from forebay.ports.task import Task
from forebay.ports.webhook_endpoints import WebhookEndpoints
from forebay.tasks import task
from forebay.telemetry.metrics import Metrics

DEFAULT_CLOCKS = ClockLimits()
Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class _Api(FastAPI):
    """FastAPI without the layers that it puts around its routes and nothing here uses: telemetry, a limit for bodies,
    stacks for dependencies (so that no route may have `Depends`) and a last word on errors, for which `Edge` stands.
    They take a twentieth of a submission (docs/decisions/hot-routes-are-plain-asgi.md)."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ExceptionMiddleware(self.router, self.exception_handlers)
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return app


class Route(APIRoute):
    """A FastAPI route for the documents, served without FastAPI's dependency machinery, which the endpoints do not use:
    they take a Request and give an Answer. That saves about a third of the cost of a submission."""

    def __init__(self, path: str, endpoint: Endpoint, gate: Gate, *, takes: Scope | Public, **described: Any) -> None:
        super().__init__(path, endpoint, response_model=None, **described)
        self.takes = takes
        self.app = _serve(endpoint, gate, takes)


def build_app(
    *,
    catalog: ModelCatalog,
    mint: IdMint,
    queue: Queue,
    store: ResultStore,
    blobs: BlobStore,
    fleet: Fleet,
    events: EventLog,
    cancellations: Cancellations,
    keys: ApiKeys,
    quotas: Quotas,
    endpoints: WebhookEndpoints,
    check_webhook_url: Callable[[str], object],
    clocks: ClockLimits = DEFAULT_CLOCKS,
    metrics: Metrics,
    draining: asyncio.Event,
    max_body_bytes: int,
    inline_limit_bytes: int,
    default_quota: Quota = NO_QUOTA,
    max_queue_length: int = 0,
    body_budget_bytes: int = BODY_BUDGET_BYTES,
    kinds: Mapping[str, str] = {},
    projector_lag_s: Callable[[], float] = float,
    task_of: Callable[[str], Task] = task,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.perf_counter,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> FastAPI:
    """The public API.

    Once `draining` is set, callers who wait are answered within a second, so that a stop does not last as long as their
    patience, and /readyz says no. `default_quota` holds for tenants that have none of their own, `max_queue_length`
    for lanes of models. `kinds` names the technologies behind `queue`, `store` and `blobs`, for /health.
    `projector_lag_s()` is how far `store` is behind the log, 0 if nobody here knows. `check_webhook_url(url)` raises
    InvalidRequest for an address that nothing may be sent to.
    """
    durability = queue.features.durability.value
    keeper = Keeper(store, random_bytes(16).hex(), monotonic)
    bounds = Bounds(
        store=store,
        fleet=fleet,
        limits={name: catalog.resolve(name).limits.max_queue_length for name in catalog.specs},
        default=max_queue_length,
        monotonic=monotonic,
        lag_s=projector_lag_s,
    )
    submitter = Submitter(
        queue=queue,
        blobs=blobs,
        catalog=catalog,
        task_of=task_of,
        mint=mint,
        keeper=keeper,
        audience=Audience(endpoints, monotonic),
        check_webhook_url=check_webhook_url,
        meter=Meter(
            quotas=quotas,
            store=store,
            defaults=default_quota,
            clock=clock,
            monotonic=monotonic,
            lag_s=projector_lag_s,
        ),
        bounds=bounds,
        clock=clock,
        monotonic=monotonic,
        clocks=clocks,
        inline_limit_bytes=inline_limit_bytes,
    )
    reader = JobReader(
        store=store,
        blobs=blobs,
        mint=mint,
        clock=clock,
        monotonic=monotonic,
        projector_lag_s=projector_lag_s,
        draining=draining,
    )
    canceler = Canceler(reader=reader, events=events, cancellations=cancellations, clock=clock)
    writer = JobWriter(durability)
    retrier = Retrier(reader=reader, store=store, events=events, blobs=blobs, submitter=submitter, metrics=metrics)
    dead_letters = DeadLetters(reader=reader, retrier=retrier, writer=writer, draining=draining, monotonic=monotonic)
    budget = BodyBudget(max(body_budget_bytes, max_body_bytes))
    jobs = JobRoutes(
        submitter=submitter,
        reader=reader,
        canceler=canceler,
        deleter=Deleter(reader=reader, events=events, clock=clock),
        writer=writer,
        budget=budget,
        metrics=metrics,
    )
    batch_log = BatchLog(keeper, events, clock)
    batch_reader = BatchReader(
        store=store, jobs=reader, mint=mint.of_realm("\0batch"), clock=clock, projector_lag_s=projector_lag_s
    )
    batches = BatchRoutes(
        uploader=Uploader(
            log=batch_log,
            submitter=submitter,
            batches=store,
            metrics=metrics,
            line_most_bytes=max_body_bytes,
            stopping=draining.is_set,
        ),
        reader=batch_reader,
        canceler=BatchCanceler(
            reader=batch_reader,
            store=store,
            log=batch_log,
            events=events,
            cancellations=cancellations,
            clock=clock,
            monotonic=monotonic,
        ),
        budget=budget,
    )
    about = {"version": forebay.__version__, "durability": durability, **kinds}
    probe = QueueProbe(queue, catalog, monotonic)
    models = ModelRoutes(
        catalog=catalog,
        task_of=task_of,
        fleet=fleet,
        probe=probe,
        closed_s=submitter.closed_s,
        draining=draining,
        about=about,
    )

    failed = DeadLetterRoutes(retrier=retrier, dead_letters=dead_letters, writer=writer)
    explainer = Explainer(
        store=store,
        fleet=fleet,
        probe=probe,
        exact=queue.features.shares_by_message,
        clock=clock,
        lag_s=projector_lag_s,
    )
    deliveries = DeliveryRoutes(
        Deliveries(reader=reader, outbox=store, events=events, draining=draining, monotonic=monotonic)
    )
    queues = QueueRoutes(
        catalog=catalog, store=store, fleet=fleet, reader=reader, explainer=explainer, bounds=bounds, clock=clock
    )
    webhooks = EndpointRoutes(endpoints=endpoints, check_url=check_webhook_url, clock=clock, random_bytes=random_bytes)

    app = _Api(
        title="Forebay",
        version=forebay.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # Each costs a look at the process's providers per request; metrics are the edge's.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    openapi = OpenApi(app, catalog, task_of, clocks)
    app.openapi = openapi.document  # type: ignore[method-assign]  # as FastAPI's docs extend it
    gate = Gate(keys, clock=clock, monotonic=monotonic)
    operations = openapi.operations(jobs, batches, failed, deliveries, queues, webhooks, models)
    app.router.routes.extend(Route(gate=gate, **arguments) for arguments in operations)
    for path, page in (("/openapi.json", openapi.serve_document), ("/docs", openapi.serve_page), ("/", openapi.lead)):
        app.router.routes.append(Route(path, page, gate, takes=PUBLIC, include_in_schema=False))
    app.add_exception_handler(ForebayError, _on_forebay_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(
        Edge,
        metrics=metrics,
        max_body_bytes=max_body_bytes,
        streamed=BATCHES_PATH,
        budget=budget,
        random_bytes=random_bytes,
        monotonic=monotonic,
    )
    return app


def _serve(endpoint: Endpoint, gate: Gate, takes: Scope | Public) -> ASGIApp:
    async def serve(scope: AsgiScope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if isinstance(takes, Scope):
            set_tenant(request, await gate.admit(request, takes))
        answer = await endpoint(request)
        await answer(scope, receive, send)

    return serve


async def _on_forebay_error(request: Request, error: Exception) -> Any:
    assert isinstance(error, ForebayError)
    return problem_of(request.scope, error)


async def _on_http_exception(request: Request, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The router names the methods of the first route at this path only; RFC 9110 section 15.5.6 wants all.
        # What a path names literally goes before what a parameter takes, as in the OpenAPI document.
        routes = [one for one in request.app.routes if isinstance(one, APIRoute)]
        here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        literal = [route for route in here if route.path == request.scope["path"]]
        methods = {method for route in literal or here for method in route.methods or ()}
        headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return problem_of_status(request.scope, error.status_code, {key.lower(): value for key, value in headers.items()})
