"""A running service, seen through its HTTP API by the client commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from forebay.cli.address import address_in, reachable
from forebay.cli.connection import ANSWER_TIMEOUT_S, Connection, Refused
from forebay.core.errors import ForebayError, Misconfigured, Unavailable

_ENDPOINTS = "/v1/webhook-endpoints"

FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


def service_url(url: str | None) -> str:
    """Where the service is: `--url`, else FOREBAY_URL, else what runs on data_dir, else where one would listen."""
    found = url or os.environ.get("FOREBAY_URL")
    if not found:
        from forebay.cli.options import current_settings

        settings = current_settings({})
        found = address_in(settings.data_dir)
    if not found:
        if settings.port == 0:
            raise Misconfigured(
                f"no service runs on {settings.data_dir}, and port is 0, so any port may be meant: "
                "name the service with --url or FOREBAY_URL"
            )
        host = settings.host
        found = reachable(f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}")
    if urlsplit(found).scheme not in ("http", "https") or not urlsplit(found).hostname:
        raise Misconfigured(f"{found!r} is no address of a service; expected one like http://127.0.0.1:8000")
    return found.rstrip("/")


class Service(Connection):
    """What can be asked of it. Blocking calls; each raises Refused for an error answer and Unavailable when nobody
    answers."""

    def submit_body(
        self, model: str, body: bytes, media_type: str, parameters: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any]:
        """Submit raw bytes; the job, queued. The service reads parameters as the types that the model's schema says."""
        path = f"/v1/models/{quote(model, safe='')}/jobs"
        headers = {"content-type": media_type}
        return self._object("POST", path, content=body, headers=headers, params=list(parameters))

    def submit_json(self, model: str, value: Any, parameters: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Submit a JSON value; the job, queued. A parameter is read as JSON where it is JSON, else as text; one that is
        repeated is a list."""
        found: dict[str, Any] = {}
        for name, text in parameters:
            found[name] = [*found[name], _typed(text)] if name in found else [_typed(text)]
        body = {"model": model, "input": value}
        if found:
            body["parameters"] = {name: values if len(values) > 1 else values[0] for name, values in found.items()}
        return self._object("POST", "/v1/jobs", json=body)

    def job(self, job_id: str, wait_s: int = 0) -> dict[str, Any]:
        """The job as it is, or as soon as it is final within `wait_s`."""
        path = f"/v1/jobs/{quote(job_id, safe='')}"
        if not wait_s:
            return self._object("GET", path)
        return self._object("GET", path, params={"wait": wait_s}, timeout=wait_s + ANSWER_TIMEOUT_S)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """The job in the state that won; not final only where the service is behind."""
        return self._object("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    def delete(self, job_id: str) -> bool:
        """Whether it is gone for every reader; else it will be. Raises Refused for one that has not ended."""
        return self._delete(f"/v1/jobs/{quote(job_id, safe='')}") == 204

    def explain(self, job_id: str) -> dict[str, Any]:
        """Why the job waits, and for how long it may."""
        return self._object("GET", f"/v1/jobs/{quote(job_id, safe='')}/explain")

    def retry(self, job_id: str) -> dict[str, Any]:
        """The job that does it again."""
        return self._object("POST", f"/v1/jobs/{quote(job_id, safe='')}/retry")

    def dead_letters(self, *, limit: int, **filters: str | None) -> list[dict[str, Any]]:
        """As `jobs`."""
        return self._pages("/v1/dead-letters", "dead_letters", limit, filters)

    def dead_letter(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", f"/v1/dead-letters/{quote(job_id, safe='')}")

    def redrive(self, job_id: str) -> dict[str, Any]:
        """The job that does it again, now or since before."""
        return self._object("POST", f"/v1/dead-letters/{quote(job_id, safe='')}/redrive")

    def redrive_some(self, **query: str | int | None) -> dict[str, Any]:
        """What was done within some seconds, and where to go on."""
        params = {name: value for name, value in query.items() if value is not None}
        return self._object("POST", "/v1/dead-letters/redrive", params=params)

    def export(self, **query: str | int | None) -> Iterator[str]:
        """A line for each dead letter, without its end."""
        params = {name: value for name, value in query.items() if value is not None}
        headers = {"accept": "application/x-ndjson"}
        with self._streaming("/v1/dead-letters/export", params=params, headers=headers) as answer:
            yield from answer.iter_lines()

    def result(self, job_id: str) -> bytes:
        """The output of a job that succeeded, as it was stored."""
        path = f"/v1/jobs/{quote(job_id, safe='')}/result"
        with self._streaming(path, headers={"accept": "*/*"}) as answer:
            return answer.read()

    def jobs(self, *, limit: int, **filters: str | None) -> list[dict[str, Any]]:
        """The newest first, at most `limit` of them, from as many pages as it takes."""
        return self._pages("/v1/jobs", "jobs", limit, filters)

    def upload_batch(self, batch_id: str, query: Mapping[str, str], lines: Iterable[bytes]) -> dict[str, Any]:
        """Send JSON Lines under that id, which may have had them before; the batch, and what was rejected."""
        headers = {"content-type": "application/x-ndjson"}
        return self._object("PUT", _batch(batch_id), params=query, content=lines, headers=headers, timeout=None)

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self._object("GET", _batch(batch_id))

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """The batch, perhaps not finished yet."""
        return self._object("POST", f"{_batch(batch_id)}/cancel")

    def batch_results(self, batch_id: str, *, after_line: int = 0) -> Generator[bytes, None, None]:
        """JSON Lines, in pieces."""
        path, params = f"{_batch(batch_id)}/results", {"after_line": after_line} if after_line else {}
        with self._streaming(path, good=(200, 202), params=params) as answer:
            yield from answer.iter_bytes()

    def models(self) -> list[dict[str, Any]]:
        return list(self._object("GET", "/v1/models")["models"])

    def model(self, name: str) -> dict[str, Any]:
        return self._object("GET", f"/v1/models/{quote(name, safe='')}")

    def queues(self) -> list[dict[str, Any]]:
        """What waits and runs in each lane of each model."""
        return list(self._object("GET", "/v1/queues")["queues"])

    def endpoints(self) -> list[dict[str, Any]]:
        """The tenant's webhook endpoints, the oldest first."""
        return list(self._object("GET", _ENDPOINTS)["endpoints"])

    def add_endpoint(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint, with its secret."""
        return self._object("POST", _ENDPOINTS, json=asked)

    def change_endpoint(self, endpoint_id: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("PATCH", f"{_ENDPOINTS}/{quote(endpoint_id, safe='')}", json=asked)

    def remove_endpoint(self, endpoint_id: str) -> None:
        self._delete(f"{_ENDPOINTS}/{quote(endpoint_id, safe='')}")

    def webhook_secret(self, endpoint_id: str | None) -> dict[str, Any]:
        """An endpoint's, or without an id the tenant's own."""
        path = "/v1/webhook-secret" if endpoint_id is None else f"{_ENDPOINTS}/{quote(endpoint_id, safe='')}/secret"
        return self._object("GET", path)

    def rotate_webhook_secret(self, endpoint_id: str | None, overlap_s: float) -> dict[str, Any]:
        """As `webhook_secret`, with a new one."""
        one = None if endpoint_id is None else f"{_ENDPOINTS}/{quote(endpoint_id, safe='')}/rotate-secret"
        return self._object("POST", one or "/v1/webhook-secret/rotate", json={"overlap_s": overlap_s})

    def deliveries_of(self, job_id: str) -> list[dict[str, Any]]:
        """Of one job."""
        return list(self._object("GET", f"/v1/jobs/{quote(job_id, safe='')}/deliveries")["deliveries"])

    def deliveries(self, *, limit: int, **filters: str | None) -> list[dict[str, Any]]:
        """The oldest first; else as `jobs`."""
        return self._pages("/v1/deliveries", "deliveries", limit, filters)

    def redeliver(self, job_id: str, delivery_id: str) -> dict[str, Any]:
        """The delivery, due now."""
        path = f"/v1/jobs/{quote(job_id, safe='')}/deliveries/{quote(delivery_id, safe='')}/redeliver"
        return self._object("POST", path)

    def redeliver_some(self, **query: str | None) -> dict[str, Any]:
        """How many were asked for within some seconds, and where to go on."""
        params = {name: value for name, value in query.items() if value is not None}
        return self._object("POST", "/v1/deliveries/redeliver", params=params)

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._object("GET", "/health")


def _batch(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


def wait_until_final(
    service: Service,
    job: dict[str, Any],
    on_change: Callable[[dict[str, Any]], None],
    pause: Callable[[float], None],
) -> dict[str, Any]:
    """Long-poll until the job is final; `on_change(job)` for every answer.

    A service that restarts meanwhile has not lost the job, so up to ten failures in a row are waited out.
    """
    wait_s, failures = 1, 0
    while job["status"] not in FINAL:
        try:
            job = service.job(job["id"], wait_s)
        except ForebayError as error:
            retry = isinstance(error, Unavailable) or (isinstance(error, Refused) and error.status in (429, 503))
            failures += 1
            if not retry or failures > 10:
                raise
            pause(min(0.5 * failures, 5.0))
            continue
        failures = 0
        on_change(job)
        wait_s = min(wait_s * 2, 20)  # at first a quick look, so that `running` is seen; later fewer requests
    return job


def _typed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
