"""Words of the OpenAPI document that several operations share."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from forebay.api import endpoint_schemas, schemas
from forebay.api.idempotency import KEY_PATTERN
from forebay.api.prefer import WAIT_MAX_S
from forebay.core.api_key import Scope
from forebay.core.event import EventKind
from forebay.core.webhook import URL_MOST_CHARS

_REF = "#/components/schemas/"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": _REF + "Problem"}}}
_MEANING = {
    400: "The body is not JSON.",
    401: "No API key, or none that holds: `no_key`, `invalid_key`, `expired_key`, `revoked_key`.",
    403: "`scope_missing`: the API key may not do this.",
    404: "Unknown: nothing of that name or id is known to this caller.",
    409: "`idempotency_key_in_use`: a copy is being accepted just now, ask again; `job_exists`: an older job has this "
    "UUID; `job_not_final`: only a job that has ended is deleted or done again; of a retry `job_succeeded`.",
    410: "`job_gone`: the job was retained no longer, or somebody deleted it; of a retry `input_gone`: its "
    "input is no longer kept.",
    413: "The body is larger than `limit_bytes`; `too_many_lines`: more than `limit_lines`.",
    415: "The media type is not taken; `accepted` lists those that are.",
    422: "What was sent can never work; `errors` says where.",
    429: "`quota_exceeded`: the tenant's quota has no room for it now; `queue_full`: its lane has none.",
    503: "Something is away; `overloaded`: there is no room just now; `outcome_unknown`: the job `job_id` may exist.",
}
_HEADERS = {
    "ETag": "Names these bytes, for `If-None-Match`.",
    "Location": "Where to look at what was accepted.",
    "Retry-After": "Seconds until asking again is worth while.",
    "Preference-Applied": "Which of the preferences were honoured (RFC 7240).",
    "Idempotency-Replayed": "`true`: an earlier copy had been accepted, and this is the answer to it.",
    "X-Request-ID": "The caller's, or one of ours.",
}


class Public(Enum):
    """Of a route that takes no key."""

    PUBLIC = "public"


PUBLIC = Public.PUBLIC
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, where the service asks for one."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, in a header of its own."},
}


def operation(
    takes: Scope | Public,
    method: str,
    path: str,
    endpoint: Any,
    tag: str,
    summary: str,
    responses: Mapping[int, Mapping[str, Any]],
    *,
    parameters: tuple[Mapping[str, Any], ...] = (),
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments of one `app.Route`. `takes` is the scope that a caller's key must have. The operation's id and
    description are the name and the docstring of the endpoint's method."""
    if isinstance(takes, Scope):
        responses = {**responses, **problems(401, 403)}
    extra: dict[str, Any] = {"responses": {str(status): response for status, response in responses.items()}}
    extra["security"] = [{"bearer": [takes.value]}, {"key": [takes.value]}, {}] if isinstance(takes, Scope) else []
    if parameters:
        extra["parameters"] = list(parameters)
    if body:
        extra["requestBody"] = body
    return {
        "takes": takes,
        "path": path,
        "endpoint": endpoint,
        "methods": [method],
        "tags": [tag],
        "summary": summary,
        "operation_id": endpoint.__name__,
        "openapi_extra": extra,
    }


def answers(description: str, model: str, *named: str) -> dict[str, Any]:
    """A JSON answer that fits the component `model`."""
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REF + model}}},
    }
    if named:
        response["headers"] = headers(*named)
    return response


def reference(model: str) -> dict[str, str]:
    """To the component `model`."""
    return {"$ref": _REF + model}


def headers(*names: str) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names}


def problems(*statuses: int, meaning: Mapping[int, str] = MappingProxyType({})) -> dict[int, dict[str, Any]]:
    """`meaning`: where it is not that of most routes."""
    return {
        status: {"description": meaning.get(status) or _MEANING[status], "content": _PROBLEM}
        | ({"headers": headers("Retry-After")} if status in (429, 503) else {})
        for status in statuses
    }


def json_body(model: str, examples: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": _REF + model}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": {"application/json": content}}


def raw_body(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`examples` of each media type, by model."""
    content = {
        media_type: {"schema": {}, **({"examples": dict(found)} if found else {})}
        for media_type, found in sorted(examples.items())
    }
    return {"required": True, "content": content or {"*/*": {"schema": {}}}}


def means(name: str) -> str:
    """What a field of a job means, in the query as in the body."""
    return schemas.JobSubmission.model_fields[name].description or ""


def path_parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def query_parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def json_query_parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """One whose text is JSON."""
    return {
        "name": name,
        "in": "query",
        "description": description,
        "content": {"application/json": {"schema": schema}},
    }


WAIT = query_parameter(
    "wait",
    "Answer as soon as the job is final, after this many seconds at the latest.",
    type="integer",
    minimum=0,
    maximum=WAIT_MAX_S,
)
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names one job for a day, however many copies of the request arrive: each is answered with it. In "
    "quotes, or bare where it holds nothing that separates values.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
}
URL = {"type": "string", "minLength": 1, "maxLength": URL_MOST_CHARS}
WEBHOOK_URL = query_parameter("webhook_url", "An https address that is called once the job is final.", **URL)
UUID = {"format": "uuid", "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"}
NOT_MODIFIED = {"description": "The output is the one that you have.", "headers": headers("ETag")}
LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event that came; what it told is not told again.",
    "schema": {"type": "string"},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of the output that you have.",
    "schema": {"type": "string"},
}
EVENTS = {
    "description": "Server-sent events: `event` is a state, `data` the job object, without its output; `output` holds "
    "a chunk that the attempt has emitted, `progress` says how far it is. A comment comes every 15 s.",
    # OpenAPI 3.1 has no word for what one event is; `itemSchema` is that of 3.2, and FastAPI writes it into 3.1, too.
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "required": ["id", "event", "data"],
                "properties": {
                    "id": {"type": "string"},
                    "event": {"enum": list(EventKind)},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {
                            "anyOf": [
                                {"$ref": _REF + name} for name in ("JobDocument", "OutputDocument", "ProgressDocument")
                            ]
                        },
                    },
                },
            }
        }
    },
}
METADATA_FILTER = {
    "name": "metadata.NAME",
    "in": "query",
    "description": "Only jobs whose metadata has the member NAME, with this value: a string as it is, anything else "
    "as its JSON. It may be given for several members.",
    "schema": {"type": "string"},
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": f"RFC 7240: `wait=N` (at most {WAIT_MAX_S} seconds) answers 200 with the job if it is final then, "
    "else 202; `respond-async` alone answers 202 at once.",
    "schema": {"type": "string"},
    "example": "wait=10",
}


def components() -> dict[str, Any]:
    """The schemas that `$ref`s point to."""
    asked: list[type[BaseModel]] = [
        schemas.JobSubmission,
        schemas.SimpleSubmission,
        schemas.LineSubmission,
        endpoint_schemas.EndpointSubmission,
        endpoint_schemas.EndpointChange,
        endpoint_schemas.SecretRotation,
    ]
    given: list[type[BaseModel]] = [
        schemas.JobDocument,
        schemas.SimpleDocument,
        schemas.OutputDocument,
        schemas.ProgressDocument,
        schemas.JobsDocument,
        schemas.UploadDocument,
        schemas.BatchDocument,
        schemas.BatchesDocument,
        schemas.LineDocument,
        schemas.ModelsDocument,
        schemas.QueuesDocument,
        schemas.DeadLettersDocument,
        schemas.DeadLetterDocument,
        schemas.ExportedDeadLetterDocument,
        schemas.RedrivenDocument,
        schemas.DeliveriesDocument,
        schemas.DeliveryDocument,
        schemas.DeliveryDetailDocument,
        schemas.RedeliveredDocument,
        schemas.ExplanationDocument,
        schemas.ModelDetailDocument,
        endpoint_schemas.EndpointDocument,
        endpoint_schemas.NewEndpointDocument,
        endpoint_schemas.EndpointsDocument,
        endpoint_schemas.SecretDocument,
        schemas.ReadyDocument,
        schemas.HealthDocument,
        schemas.LiveDocument,
        schemas.Problem,
    ]
    _, defined = models_json_schema(
        [(model, "validation") for model in [*asked, *given]], ref_template=_REF + "{model}"
    )
    found: dict[str, Any] = defined["$defs"]
    for name, schema in found.items():
        if "properties" in schema and name not in {model.__name__ for model in asked}:
            _absent_not_null(schema)
    return found


def _absent_not_null(schema: dict[str, Any]) -> None:
    """pydantic writes a member that may be absent as one that may be null; ours never are."""
    for member in schema["properties"].values():
        if member.get("default", ...) is None:
            del member["default"]
        kinds = [kind for kind in member.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del member["anyOf"]
            member.update(kinds[0])
