"""The way to a running service: what is sent, what an answer means, and who could not be reached."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from forebay.cli.program import program
from forebay.core.errors import ForebayError, Misconfigured, Unavailable

if TYPE_CHECKING:
    import httpx2

CONNECT_TIMEOUT_S = 5.0
PAGE_MOST = 1000
"""What a service lists at once, of jobs and of all else."""

ANSWER_TIMEOUT_S = 30.0
"""Beyond the wait that was asked for: a submit waits for the disk, a loaded service for its turn."""


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


class Connection:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.close()

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

    def _pages(self, path: str, name: str, limit: int, filters: Mapping[str, str | None]) -> list[dict[str, Any]]:
        params = {name: value for name, value in filters.items() if value is not None}
        found: list[dict[str, Any]] = []
        while True:
            page = self._object("GET", path, params={**params, "limit": min(PAGE_MOST, limit - len(found))})
            found += page[name]
            if "next_cursor" not in page or len(found) >= limit:
                return found
            params["cursor"] = page["next_cursor"]

    @contextmanager
    def _streaming(self, path: str, *, good: Collection[int] = (200,), **request: Any) -> Iterator[httpx2.Response]:
        """An answer with one of these statuses, of whose body nothing has been read yet."""
        with self._reaching(), self._client.stream("GET", path, **request) as answer:
            if answer.status_code not in good:
                answer.read()
                raise Refused(answer.status_code, _document(answer))
            yield answer

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except self._transport_error as error:
            raise Unavailable(
                f"no service answers at {self.url} ({str(error) or type(error).__name__}); "
                f"start one with `{program()} up`, or name another with --url or FOREBAY_URL"
            ) from error


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


def _document(answer: httpx2.Response) -> dict[str, Any]:
    """The answer's JSON object. Whatever else answered (a proxy, another program) is no Forebay, and is told so."""
    try:
        document = answer.json()
    except ValueError:  # no JSON: from something in front of the service
        document = None
    if isinstance(document, dict):
        return document
    raise Unavailable(
        f"what answers at {answer.url} is no Forebay service (status {answer.status_code}, "
        f"{answer.headers.get('content-type', 'no content type')}); name the service with --url or FOREBAY_URL"
    )
