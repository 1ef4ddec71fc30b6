"""What only the operator sees, on a port of its own: metrics and liveness."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forebay.telemetry.metrics import Metrics


def build_admin_app(metrics: Metrics) -> Starlette:
    """`/metrics` in Prometheus' text format and `/livez`."""

    async def show(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/metrics", show), Route("/livez", live)])
