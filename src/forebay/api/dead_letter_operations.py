"""What the OpenAPI document says of doing jobs again."""

from __future__ import annotations

from typing import Any

from forebay.api.dead_letter_routes import DeadLetterRoutes
from forebay.api.dead_letters import EXPORT_MOST, RATE_DEFAULT, RATE_MAX
from forebay.api.describe import answers, operation, path_parameter, problems, query_parameter, reference
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX
from forebay.core.api_key import Scope

TAG = "dead letters"

_FILTERS = (
    query_parameter("model", "Only of this model."),
    query_parameter("code", "Only with this code of the error."),
    query_parameter("created_after", "Accepted later than this.", type="string", format="date-time"),
    query_parameter("created_before", "Accepted earlier than this.", type="string", format="date-time"),
)
_CURSOR = query_parameter("cursor", "`next_cursor` of an earlier answer.")
_LINES = {"application/x-ndjson": {"itemSchema": reference("ExportedDeadLetterDocument")}}


def operations(routes: DeadLetterRoutes) -> list[dict[str, Any]]:
    """The arguments of `app.Route`, in the order in which the router tries them."""
    job_id = path_parameter("job_id", "As the submission answered it.")
    retried = {
        202: answers("The new job.", "JobDocument", "Location", "Idempotency-Replayed", "Retry-After"),
        200: answers("There was one, which is final.", "JobDocument", "Location", "Idempotency-Replayed"),
        **problems(404, 409, 410, 422, 429, 503),
    }
    return [
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/jobs/{job_id}/retry",
            routes.retry_job,
            TAG,
            "Do a job again that ended without success",
            retried,
            parameters=(job_id,),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/dead-letters",
            routes.list_dead_letters,
            TAG,
            "List dead letters, newest first",
            {200: answers("The dead letters.", "DeadLettersDocument"), **problems(422, 503)},
            parameters=(*_FILTERS, _CURSOR, _limit(LIMIT_DEFAULT)),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/dead-letters/export",
            routes.export_dead_letters,
            TAG,
            "Export dead letters with their inputs",
            {200: {"description": "One in each line.", "content": _LINES}, **problems(422, 503)},
            parameters=(*_FILTERS, _CURSOR, _limit(None)),
        ),
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/dead-letters/redrive",
            routes.redrive_dead_letters,
            TAG,
            "Redrive many dead letters",
            {200: answers("What was done.", "RedrivenDocument"), **problems(409, 422, 429, 503)},
            parameters=(
                *_FILTERS,
                _CURSOR,
                _limit(LIMIT_MAX),
                query_parameter(
                    "rate", "Jobs in a second.", type="integer", minimum=1, maximum=RATE_MAX, default=RATE_DEFAULT
                ),
            ),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/dead-letters/{job_id}",
            routes.get_dead_letter,
            TAG,
            "Show a dead letter with its attempts",
            {200: answers("The dead letter.", "DeadLetterDocument"), **problems(404, 410, 422, 503)},
            parameters=(job_id,),
        ),
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/dead-letters/{job_id}/redrive",
            routes.redrive_dead_letter,
            TAG,
            "Redrive a dead letter",
            retried,
            parameters=(job_id,),
        ),
    ]


def _limit(default: int | None) -> dict[str, Any]:
    if default is None:
        return query_parameter(
            "limit", "At most so many; all if left out.", type="integer", minimum=1, maximum=EXPORT_MOST
        )
    return query_parameter("limit", "How many.", type="integer", minimum=1, maximum=LIMIT_MAX, default=default)
