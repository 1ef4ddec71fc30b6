"""The operator's port."""

from __future__ import annotations

import httpx2
import pytest
import structlog

from forebay.api.admin import build_admin_app
from forebay.core.errors import Unavailable
from forebay.telemetry.metrics import Metrics


class Admin:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.refreshed = 0
        self.error: Exception | None = None
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(build_admin_app(self.metrics, refresh=self.refresh)), base_url="http://admin"
        )

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.error:
            raise self.error
        self.metrics.queue_depth.labels("echo", "normal").set(7)


@pytest.fixture
def admin() -> Admin:
    return Admin()


async def test_metrics_are_text_for_prometheus_and_fresh(admin: Admin) -> None:
    answer = await admin.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'forebay_queue_depth{lane="normal",model="echo"} 7.0' in answer.text
    assert admin.refreshed == 1


async def test_metrics_are_shown_though_something_is_away(admin: Admin) -> None:
    admin.error = Unavailable("the queue is away")
    with structlog.testing.capture_logs() as logged:
        answer = await admin.http.get("/metrics")
    assert answer.status_code == 200
    assert "forebay_http_requests_total" in answer.text
    assert logged[0]["event"] == "metrics.stale"


async def test_livez(admin: Admin) -> None:
    answer = await admin.http.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
