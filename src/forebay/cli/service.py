"""A running service, seen through its HTTP API by the client commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from forebay.cli.address import address_in, reachable
from forebay.cli.program import program
from forebay.core.errors import ForebayError, Misconfigured, Unavailable

if TYPE_CHECKING:
    import httpx2

CONNECT_TIMEOUT_S = 5.0
PAGE_MOST = 1000
"""Jobs that a service lists at once."""

ANSWER_TIMEOUT_S = 30.0
"""Beyond the wait that was asked for: a submit waits for the disk, a loaded service for its turn."""

_ENDPOINTS = "/v1/webhook-endpoints"

FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


class Refused(ForebayError):
    """The service answered with an error. `status` is its HTTP status, `problem` its RFC 9457 document."""

    code = "refused"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(told(status, problem))
        self.status = status
        self.problem = problem

    @property
    def retry_after_s(self) -> float | None:
        """When to send the same again; None if it may have been taken already, or would not be taken then either."""
        after = self.problem.get("retry_after_s")
        takes_nothing = self.status in (429, 503) and "job_id" not in self.problem
        return float(after) if takes_nothing and isinstance(after, int | float) else None


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


def own_key(environ: Mapping[str, str]) -> str:
    """The API key of whoever types the command: FOREBAY_API_KEY, or what is in the file FOREBAY_API_KEY_FILE; "" for
    none. Raises Misconfigured for a file that cannot be read."""
    if key := environ.get("FOREBAY_API_KEY", ""):
        return key
    path = environ.get("FOREBAY_API_KEY_FILE", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"FOREBAY_API_KEY_FILE: {path} cannot be read: {error}") from error


class Service:
    """Blocking calls. Each raises Refused for an error answer and Unavailable when nobody answers."""

    def __init__(self, url: str, transport: httpx2.BaseTransport | None = None) -> None:
        import httpx2

        import forebay

        self.url = url
        self._transport_error = httpx2.TransportError
        self._client = httpx2.Client(
            base_url=url,
            transport=transport,
            # A proxy of the environment is for the world outside, not for a service on this machine.
            trust_env=urlsplit(url).hostname not in ("127.0.0.1", "::1", "localhost"),
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={
                "user-agent": f"forebay-cli/{forebay.__version__}",
                "accept": "application/json",
                **({"authorization": f"Bearer {key}"} if (key := own_key(os.environ)) else {}),
            },
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.close()

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
        with (
            self._reaching(),
            self._client.stream("GET", "/v1/dead-letters/export", params=params, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise Refused(answer.status_code, _document(answer))
            yield from answer.iter_lines()

    def result(self, job_id: str) -> bytes:
        """The output of a job that succeeded, as it was stored."""
        with self._reaching():
            answer = self._client.get(f"/v1/jobs/{quote(job_id, safe='')}/result", headers={"accept": "*/*"})
        if answer.status_code != 200:
            raise Refused(answer.status_code, _document(answer))
        return answer.content

    def jobs(self, *, limit: int, **filters: str | None) -> list[dict[str, Any]]:
        """The newest first, at most `limit` of them, from as many pages as it takes."""
        return self._pages("/v1/jobs", "jobs", limit, filters)

    def _pages(self, path: str, name: str, limit: int, filters: Mapping[str, str | None]) -> list[dict[str, Any]]:
        params = {name: value for name, value in filters.items() if value is not None}
        found: list[dict[str, Any]] = []
        while True:
            page = self._object("GET", path, params={**params, "limit": min(PAGE_MOST, limit - len(found))})
            found += page[name]
            if "next_cursor" not in page or len(found) >= limit:
                return found
            params["cursor"] = page["next_cursor"]

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
        with self._reaching(), self._client.stream("GET", path, params=params) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise Refused(answer.status_code, _document(answer))
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

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._object("GET", "/health")

    def _object(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        with self._reaching():
            answer = self._client.request(method, path, **request)
        document = _document(answer)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, document)
        return document

    def _delete(self, path: str) -> int:
        """The status of the answer, which has no body."""
        with self._reaching():
            answer = self._client.delete(path)
        if answer.status_code not in (202, 204):
            raise Refused(answer.status_code, _document(answer))
        return answer.status_code

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except self._transport_error as error:
            raise Unavailable(
                f"no service answers at {self.url} ({str(error) or type(error).__name__}); "
                f"start one with `{program()} up`, or name another with --url or FOREBAY_URL"
            ) from error


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


def told(status: int, problem: Mapping[str, Any]) -> str:
    """A problem document (RFC 9457) in words."""
    text = str(problem.get("detail") or problem.get("title") or "an answer without explanation")
    lines = [f"{text} ({status} {problem.get('code') or problem.get('title') or ''}".rstrip() + ")"]
    errors = problem.get("errors")
    for error in errors if isinstance(errors, list) else []:
        place = str(error.get("pointer") or error.get("parameter") or "").removeprefix("#")
        detail = str(error.get("detail", "")).removeprefix(f"{place}: ")
        if (place or detail != text) and text != f"{place}: {detail}":
            lines.append(f"  {place or '(all of it)'}: {detail}")
    for member, words in (("known", "known"), ("accepted", "accepted media types")):
        names = problem.get(member)
        if isinstance(names, list) and not all(str(name) in text for name in names):
            lines.append(f"  {words}: {', '.join(map(str, names))}")
    if "limit_bytes" in problem:
        lines.append(f"  limit: {problem['limit_bytes']} bytes (the service's max_body_bytes)")
    if "job_id" in problem:
        lines.append(f"  the job may exist: {program()} jobs get {problem['job_id']}")
    if "request_id" in problem and status >= 500:
        lines.append(f"  request id: {problem['request_id']}")
    return "\n".join(lines)


def _typed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _document(answer: httpx2.Response) -> dict[str, Any]:
    """The answer's JSON object. Whatever else answered (a proxy, another program) is no Forebay, and is told so."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    raise Unavailable(
        f"what answers at {answer.url} is no Forebay service (status {answer.status_code}, "
        f"{answer.headers.get('content-type', 'no content type')}); name the service with --url or FOREBAY_URL"
    )
