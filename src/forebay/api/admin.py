"""What only the operator sees, on a port of its own: metrics and liveness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forebay.core.errors import ForebayError
from forebay.telemetry.metrics import Metrics

log = structlog.get_logger()


def build_admin_app(metrics: Metrics, *, refresh: Callable[[], Awaitable[None]]) -> Starlette:
    """`/metrics` in Prometheus' text format and `/livez`. `refresh` sets what is only worth reading when somebody asks;
    what it cannot read, because something is away, keeps its last value."""

    async def show(request: Request) -> Response:
        try:
            await refresh()
        except ForebayError as error:
            log.warning("metrics.stale", code=error.code, error=error.message)
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/metrics", show), Route("/livez", live)])
