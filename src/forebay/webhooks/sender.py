"""One try of a delivery: a POST, and what the receiver says of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
from msgspec import Struct
from yarl import URL

from forebay.core.egress import EgressPolicy, Target
from forebay.core.errors import ForebayError, InvalidRequest
from forebay.webhooks.egress import EgressRefused, GuardedConnector
from forebay.webhooks.lookup import Lookup, SystemLookup

TIMEOUT_S = 15.0
"""For all of a try: looking up, connecting, TLS, sending, and the head of the answer (Standard Webhooks: 15 to 30)."""
BODY_MOST_BYTES = 64 * 1024
"""Read of an answer's body and thrown away, so that the connection can be kept. Of a longer one it is closed."""
BODY_WAIT_S = 1.0
"""What the body may take. The status was said before it and counts, however the body ends after that."""
HEAD_LINE_MOST_BYTES = 8190
HEAD_LINES_MOST = 100
READ_MOST = 1024
"""URLs that are remembered as they were read: a policy never changes its mind about one, only about addresses."""

_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class SendFailed(ForebayError):
    """No answer. `code` is stable: `egress_refused`, `dns`, `connect`, `tls`, `timeout`, `reset` (the connection ended
    before the answer) or `malformed` (what came is no HTTP). `message` is fit for the tenant's eyes: it names no
    address that the tenant did not."""

    retryable = True

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


class Reply(Struct, frozen=True):
    """`retry_after_s` from now on, if the receiver asked for it; `latency_s` until the head of the answer was there."""

    status: int
    retry_after_s: float | None
    latency_s: float


class Sender:
    """Sends to where the policy allows, and follows nobody elsewhere. `lookup` and `tls` are for tests."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        timeout_s: float = TIMEOUT_S,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._lookup = lookup
        self._tls = tls
        self._now = now
        self._url_of = lru_cache(READ_MOST)(lambda url: _url(policy.check_url(url)))

    async def __aenter__(self) -> Self:
        tls = self._tls or ssl.create_default_context()
        self._session = aiohttp.ClientSession(
            connector=GuardedConnector(self._policy, self._lookup or SystemLookup(), tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            headers={"User-Agent": "Forebay-Webhooks"},
            timeout=aiohttp.ClientTimeout(total=None),  # one clock for all of it, in `send`
            max_line_size=HEAD_LINE_MOST_BYTES,
            max_field_size=HEAD_LINE_MOST_BYTES,
            max_headers=HEAD_LINES_MOST,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One POST. Any status is a reply, a redirect too. Raises SendFailed if there is none."""
        begun = time.monotonic()
        try:
            place = self._url_of(url)
            async with asyncio.timeout(self._timeout_s):
                response = await self._session.post(place, data=body, headers=headers, allow_redirects=False)
        except (InvalidRequest, EgressRefused) as error:
            raise SendFailed("egress_refused", error.message) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise SendFailed("dns", "the host's name has no address") from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise SendFailed("tls", _of_tls(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise SendFailed("connect", "no connection to the host") from error
        except TimeoutError as error:
            raise SendFailed("timeout", f"no answer within {self._timeout_s:g} s") from error
        except RuntimeError as error:  # uvloop, in place of OSError (aiohappyeyeballs 2.6, `start_connection`)
            raise SendFailed("connect", "no connection to the host") from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise SendFailed("reset", "the connection ended before the answer") from error
        except aiohttp.ClientError as error:
            raise SendFailed("malformed", "the answer is no HTTP") from error
        latency_s = time.monotonic() - begun
        await _finish(response, min(BODY_WAIT_S, self._timeout_s - latency_s))
        return Reply(response.status, _retry_after_s(response, self._now()), latency_s)


def phrase(status: int) -> str:
    with contextlib.suppress(ValueError):  # a number of its own
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def _url(target: Target) -> URL:
    """Put together from its parts, so that nothing is read again."""
    return URL.build(
        scheme=target.scheme,
        host=f"[{target.host}]" if ":" in target.host else target.host,
        port=target.port,
        path=target.path,
        query_string=target.query,
        encoded=True,
    )


async def _finish(response: aiohttp.ClientResponse, within_s: float) -> None:
    """Keeps the connection if the body ends within what it may take, else closes it."""
    if response.content.is_eof():  # all of it came with the head, and the connection is given back
        return
    left = BODY_MOST_BYTES
    try:
        async with asyncio.timeout(within_s):
            while left > 0:
                chunk = await response.content.read(left)
                if not chunk:
                    response.release()
                    return
                left -= len(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # the status stands
    finally:
        response.close()  # does nothing to one that was released


def _retry_after_s(response: aiohttp.ClientResponse, now: float) -> float | None:
    """Seconds or a date (RFC 9110 section 10.2.3); what is neither counts as nothing."""
    text = response.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):  # no date: as if it had said nothing
        return None


def _of_tls(error: Exception) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    reason = getattr(inner, "verify_message", None) or getattr(inner, "reason", None) or "no handshake"
    return f"TLS: {str(reason).lower().replace('_', ' ')}"
