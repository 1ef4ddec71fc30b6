"""Every error that Forebay raises on purpose, sorted by who must act.

    ForebayError
    ├── the caller          InvalidRequest ── UnsupportedMedia, PayloadTooLarge
    │                       NotFound, Gone, Conflict, Unauthorized, Forbidden, TooMany, WebhookNotVerified
    ├── the model's author  ModelFailed
    ├── time                Unavailable ── OutcomeUnknown
    │                       Revoked
    └── the operator        Misconfigured ── FolderInUse, BlobDamaged

`code` is stable: it appears in the API, in job errors, logs and metrics. HTTP statuses are known in `api/` only.
"""

from __future__ import annotations

from collections.abc import Sequence


class ForebayError(Exception):
    """The root. `retryable` says whether the same call may succeed later without anybody changing anything."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class InvalidRequest(ForebayError):
    """The caller sent something that can never work. `pointer` is a JSON pointer into what was sent, "" for all of
    it."""

    code = "invalid_request"

    def __init__(self, message: str, *, pointer: str = "", code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.pointer = pointer


class UnsupportedMedia(InvalidRequest):
    """The media type is not one that the model's task takes. `accepted` lists those that are."""

    code = "unsupported_media_type"

    def __init__(self, message: str, *, accepted: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.accepted = tuple(accepted)


class PayloadTooLarge(InvalidRequest):
    """More bytes than `limit_bytes` allows."""

    code = "payload_too_large"

    def __init__(self, message: str, *, limit_bytes: int) -> None:
        super().__init__(message)
        self.limit_bytes = limit_bytes


class NotFound(ForebayError):
    """Nothing of that name is known to this caller. `known` lists names that are, where telling them is harmless."""

    code = "not_found"

    def __init__(self, message: str, *, known: Sequence[str] = (), code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.known = tuple(known)


class Gone(ForebayError):
    """It existed and its retention has ended, or it was deleted."""

    code = "job_gone"


class Conflict(ForebayError):
    """The request contradicts what is already stored."""

    code = "conflict"


class Unauthorized(ForebayError):
    """Nobody knows who calls: no key, or none that holds."""

    code = "unauthorized"


class Forbidden(ForebayError):
    """We know who calls, and they may not."""

    code = "forbidden"


class TooMany(ForebayError):
    """The caller has asked for more than it may have for now; `retry_after_s` is when there may be room."""

    code = "too_many"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class WebhookNotVerified(ForebayError):
    """What arrived as a webhook is not known to be ours: raised at a receiver, by `forebay.verify_webhook`."""

    code = "webhook_not_verified"


class ModelFailed(ForebayError):
    """A model could not answer one input. One per input, never for a whole batch."""

    code = "model_failed"


class Unavailable(ForebayError):
    """Something that Forebay needs is away; `retry_after_s` is a guess at when to ask again."""

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(Unavailable):
    """A write was begun and nobody can say whether it happened; `job_id` names the job that may exist."""

    code = "outcome_unknown"

    def __init__(self, message: str, *, job_id: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.job_id = job_id


class Revoked(ForebayError):
    """Messages are no longer in this consumer's hands: their part of the channel went to another consumer."""

    code = "revoked"
    retryable = True


class Misconfigured(ForebayError):
    """The operator must change a setting, a file or a folder. `mistakes` lists all of them, one line each."""

    code = "misconfigured"

    def __init__(self, message: str, *, mistakes: Sequence[str] = (), code: str | None = None) -> None:
        super().__init__("\n".join([message, *(f"  - {mistake}" for mistake in mistakes)]), code=code)
        self.mistakes = tuple(mistakes)


class FolderInUse(Misconfigured):
    """Another process holds the data folder."""

    code = "folder_in_use"


class BlobDamaged(Misconfigured):
    """A blob is missing or its bytes do not match the digest in its reference."""

    code = "blob_damaged"
