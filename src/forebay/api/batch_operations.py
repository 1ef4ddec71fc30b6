"""What the OpenAPI document says of batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from forebay.api.batch_routes import LINES_TYPES, BatchRoutes
from forebay.api.describe import (
    IDEMPOTENCY_KEY,
    URL,
    UUID,
    answers,
    json_query_parameter,
    means,
    operation,
    path_parameter,
    problems,
    query_parameter,
    reference,
)
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX
from forebay.core.api_key import Scope
from forebay.core.job_batch import LINES_MOST
from forebay.core.lanes import Lane

TAG = "batches"

_KEY = {
    **IDEMPOTENCY_KEY,
    "description": "Names one batch, however many copies of its file arrive: each line is one job. In quotes, or bare "
    "where it holds nothing that separates values.",
}
_MEANING = {
    409: "`batch_differs`: another file, or the same with another query, came under this id before; `batch_canceled`; "
    "`idempotency_key_in_use`: a copy is being accepted just now, send it again.",
    422: "The query can never work, `errors` says where; `idempotency_key_reused`: the key came with another file, or "
    "with another query.",
    503: "Something is away, and the same file goes on under `batch_id`; `overloaded`: there is no room just now.",
}


def operations(batches: BatchRoutes, inputs: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The arguments of `app.Route`. `inputs`: one that works, by model."""
    batch_id = path_parameter("batch_id", "As the upload answered it.")
    lines = "".join(
        f"{msgspec.json.encode({'custom_id': name, 'model': name, 'input': value}).decode()}\n"
        for name, value in inputs
    )
    of_lines = {
        "schema": {"type": "string", "description": "One JSON object in each line."},
        "itemSchema": reference("LineSubmission"),
        **({"example": lines} if lines else {}),
    }
    body = {"required": True, "content": dict.fromkeys(LINES_TYPES, of_lines)}
    seconds = {"type": "number", "exclusiveMinimum": 0}
    defaults = (
        query_parameter("model", "Of the lines that name none."),
        query_parameter("version", means("version")),
        query_parameter("lane", means("lane"), type="string", enum=list(Lane), default="normal"),
        json_query_parameter(
            "parameters", "Parameters of the model for every line; those of a line go before them.", type="object"
        ),
        query_parameter("start_within_s", means("start_within_s"), **seconds),
        query_parameter("run_timeout_s", means("run_timeout_s"), **seconds),
        query_parameter("retain_s", means("retain_s"), **seconds),
        query_parameter(
            "webhook_url",
            "An https address that is called once all jobs of the batch are final.",
            **URL,
        ),
    )
    uploaded = {
        202: answers(
            "Every line is a job that survives what `durability` of /health names, or rejected.",
            "UploadDocument",
            "Location",
            "Retry-After",
            "Idempotency-Replayed",
        ),
        **problems(400, 404, 409, 413, 415, 422, 429, 503, meaning=_MEANING),
    }
    results = {"content": {LINES_TYPES[0]: {"itemSchema": reference("LineDocument")}}}
    return [
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/batches",
            batches.submit_batch,
            TAG,
            "Submit many jobs as the lines of one file",
            uploaded,
            parameters=(*defaults, _KEY),
            body=body,
        ),
        operation(
            Scope.SUBMIT,
            "PUT",
            "/v1/batches/{batch_id}",
            batches.put_batch,
            TAG,
            "Submit a batch under a UUID of your own, or go on with one",
            uploaded,
            parameters=(
                path_parameter("batch_id", "A UUID that no other batch of yours has.", **UUID),
                *defaults,
            ),
            body=body,
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/batches",
            batches.list_batches,
            TAG,
            "List batches, newest first",
            {200: answers("The batches.", "BatchesDocument"), **problems(422, 503)},
            parameters=(
                query_parameter("cursor", "`next_cursor` of an earlier answer."),
                query_parameter(
                    "limit", "How many.", type="integer", minimum=1, maximum=LIMIT_MAX, default=LIMIT_DEFAULT
                ),
            ),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/batches/{batch_id}",
            batches.get_batch,
            TAG,
            "Look at a batch",
            {200: answers("The batch.", "BatchDocument"), **problems(404, 422, 503)},
            parameters=(batch_id,),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/batches/{batch_id}/results",
            batches.get_results,
            TAG,
            "Fetch the results in the order of the lines",
            {
                200: {"description": "All of them.", **results},
                202: {"description": "Not finished: as far as it is.", **results},
                **problems(404, 422, 503),
            },
            parameters=(
                batch_id,
                query_parameter("after_line", "Begin behind this line.", type="integer", minimum=0, maximum=LINES_MOST),
            ),
        ),
        operation(
            Scope.CANCEL,
            "POST",
            "/v1/batches/{batch_id}/cancel",
            batches.cancel_batch,
            TAG,
            "Cancel a batch",
            {
                200: answers("The batch, finished.", "BatchDocument"),
                202: answers("Not finished yet: send it again.", "BatchDocument", "Retry-After"),
                **problems(404, 422, 503),
            },
            parameters=(batch_id,),
        ),
    ]
