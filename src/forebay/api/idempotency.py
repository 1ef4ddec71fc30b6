"""One key, one job: reserve the key, publish under it, and answer every copy with the same job.

The Idempotency-Key header follows draft-ietf-httpapi-idempotency-key-header-07: a structured-field String (RFC 9651
section 3.3.3), quoted; as most clients send it bare, that is taken too.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from forebay.api.problems import InvalidHeader
from forebay.core.errors import Conflict, ForebayError, InvalidRequest, OutcomeUnknown, TooMany, Unavailable
from forebay.core.reservation import Reservation, digest_of_key
from forebay.ports.reservations import Claim, Reservations

log = structlog.get_logger()

HEADER = b"idempotency-key"
KEY_MAX_CHARS = 255
LEASE_S = 15.0
"""Longer than a submission takes while a backend is away, so that only a death leaves a lease to end by itself."""

WAIT_S = 5.0
"""For another copy that is being published just now."""

LOOK_EVERY_S = 0.05

_IN_QUOTES = r'(?:[ !#-\[\]-~]|\\["\\])'
_BARE = r"[!#-+\--:<-~]"
"""Without quotes, spaces, commas and semicolons, which would make it something else of a structured field."""

_QUOTED_KEY = re.compile(f'"({_IN_QUOTES}*)"')
_BARE_KEY = re.compile(f"{_BARE}+")
KEY_PATTERN = f'^(?:"{_IN_QUOTES}{{1,{KEY_MAX_CHARS}}}"|{_BARE}{{1,{KEY_MAX_CHARS}}})$'
"""What the header may be, for the OpenAPI document."""


class Key(Struct, frozen=True):
    """`digest` names the reservation; `job_id` is "" where the service chooses it."""

    digest: str
    job_id: str = ""


class KeyReused(InvalidRequest):
    """The key names a job that was asked for in other words."""

    code = "idempotency_key_reused"


class KeyInUse(Conflict):
    """Another copy with this key is being accepted, and takes its time."""

    code = "idempotency_key_in_use"
    retryable = True


def read_key(texts: list[str]) -> Key | None:
    """The key of a request's headers, None without one. Raises InvalidHeader for what is no key."""
    if not texts:
        return None
    if len(texts) > 1:
        raise InvalidHeader("Idempotency-Key", "given more than once")
    text = texts[0].strip(" \t")
    quoted = _QUOTED_KEY.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not key or len(key) > KEY_MAX_CHARS or not (quoted or _BARE_KEY.fullmatch(text)):
        raise InvalidHeader(
            "Idempotency-Key",
            f'1 to {KEY_MAX_CHARS} printable ASCII characters in quotes ("8e03978e"); without quotes none of what '
            "separates values either: spaces, commas, semicolons",
        )
    return Key(digest_of_key("key", key))


class Keeper:
    """Sees to it that one key is published once, as far as anybody can know. `name` is this process's alone."""

    def __init__(self, reservations: Reservations, name: str, monotonic: Callable[[], float]) -> None:
        self._reservations = reservations
        self._holders = (f"{name}-{number}" for number in itertools.count())
        self._monotonic = monotonic

    async def accept(
        self,
        wanted: Reservation,
        publish: Callable[[Reservation], Awaitable[None]],
        *,
        unwritten: type[ForebayError] = TooMany,
    ) -> tuple[Reservation, bool]:
        """The reservation of the one job, which is durable, and whether it was before. `publish` is called with the
        reservation under which to publish, which may be that of a copy whose process died. `unwritten`: what it raises,
        unless it is OutcomeUnknown, only where it has written nothing; then nothing stays reserved.

        Raises KeyReused; KeyInUse where a copy takes longer than WAIT_S; Unavailable; what `publish` raises.
        """
        until, holder = self._monotonic() + WAIT_S, next(self._holders)
        while True:
            claim = await self._reservations.reserve(wanted, holder=holder, lease_s=LEASE_S)
            standing = claim.reservation
            if standing.fingerprint != wanted.fingerprint:
                raise KeyReused("within the last day this key came with another request; a new job takes a new one")
            if standing.published:
                return standing, True
            if claim.held:
                await self._publish(claim, holder, publish, unwritten)
                return standing, False
            if self._monotonic() >= until:
                raise KeyInUse("a copy of this request is being accepted just now; ask again for its answer")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _publish(
        self,
        claim: Claim,
        holder: str,
        publish: Callable[[Reservation], Awaitable[None]],
        unwritten: type[ForebayError],
    ) -> None:
        reservation = claim.reservation
        try:
            await publish(reservation)
        except Exception as error:
            refused = isinstance(error, unwritten) and not isinstance(error, OutcomeUnknown)
            if refused and not claim.resumed:
                await self._let(self._reservations.withdraw(reservation, holder=holder))
            else:
                # It may be published, by an earlier holder too: who asks again does it under the same id.
                await self._let(self._reservations.release(reservation, holder=holder))
            raise
        await self._let(self._reservations.published(reservation))

    async def _let(self, done: Awaitable[None]) -> None:
        """What is not said now, the projector says, or the lease's end."""
        try:
            await done
        except Unavailable as error:
            log.warning("reservation.left", error=error.message)
