"""PostgreSQL's errors, and those of the way to it, as ours."""

from __future__ import annotations

import asyncpg

from forebay.core.errors import ForebayError, Misconfigured, Unavailable

_AWAY = (
    "08",  # connection exceptions
    "53",  # disk full, out of memory, too many connections
    "54000",  # the queue of notifications is full
    "57",  # shutting down, starting up, crashed, cancelled, idle in a transaction for too long
    "58",  # input and output errors
    "25006",  # a standby: the primary has moved
    "25P03",  # idle in a transaction for too long
)
_BUSY = ("40", "55P03")  # deadlock, serialization, no lock within lock_timeout
_OPERATOR = (
    "28",  # who we say we are, or our password
    "3D",  # no such database
    "3F",  # no such schema
    "42501",  # no right to it
    "42P01",  # no such table: dropped under us
)
_DAMAGED = ("XX001", "XX002")


def is_busy(error: BaseException | None) -> bool:
    """Others were at the same rows, or have changed the schema: after a rollback it may be tried again at once."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    return isinstance(error, asyncpg.PostgresError) and _state(error).startswith(_BUSY)


def is_lost(error: BaseException | None) -> bool:
    """The connection is gone, or the server is going."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(_AWAY)
    return isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def translate(error: Exception, where: str, *, serving: bool) -> Exception:
    """What a caller may be told about `error`; `where` names the database, without a password.

    While `serving`, what an operator must mend is Unavailable too: the process can go on once it is mended. Errors that
    are neither the server's nor the way's, our own included, are returned as they are.
    """
    translated = _translate(error, where)
    if isinstance(translated, Misconfigured) and serving:
        translated = Unavailable(translated.message, retry_after_s=5.0)
    if translated is None:
        return error
    translated.__cause__ = error
    return translated


def _translate(error: Exception, where: str) -> ForebayError | None:
    if isinstance(error, asyncpg.PostgresError):
        state = _state(error)
        said = f"{where}: {error}"
        if state.startswith(_OPERATOR):
            return Misconfigured(said)
        if state.startswith(_DAMAGED):
            return Misconfigured(f"{said}; the database is damaged, restore it")
        if state.startswith((*_AWAY, *_BUSY)):
            return Unavailable(said)
        return ForebayError(f"{said} ({state})")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return Misconfigured(f"{where}: {error}")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{where} does not answer in time")
    if isinstance(error, (OSError, asyncpg.InternalClientError)):
        return Unavailable(f"{where} cannot be reached: {error}")
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.DataError):
        return Unavailable(f"{where}: {error}")
    return None


def _state(error: asyncpg.PostgresError) -> str:
    return error.sqlstate or ""
