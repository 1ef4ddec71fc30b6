"""What the OpenAPI document says of webhook endpoints and of what signs."""

from __future__ import annotations

from typing import Any

from forebay.api.describe import answers, json_body, operation, path_parameter, problems
from forebay.api.endpoint_routes import PATH, EndpointRoutes
from forebay.core.api_key import Scope
from forebay.core.webhook_endpoint import ENDPOINTS_MOST

TAG = "webhooks"
_ONE = f"{PATH}/{{endpoint_id}}"
_OWN = "/v1/webhook-secret"
_TOO_MANY = f"`too_many_endpoints`: the tenant has {ENDPOINTS_MOST}."
_EXAMPLE = {"url": "https://receiver.example/forebay", "events": ["completed"], "description": "production"}


def operations(routes: EndpointRoutes) -> list[dict[str, Any]]:
    """The arguments of `app.Route`. All take `admin`: they are about no job, and who knows a secret can sign."""
    endpoint_id = path_parameter("endpoint_id", "As it was answered when it was added.")
    shown = {200: answers("The endpoint.", "EndpointDocument"), **problems(404, 422, 503)}
    secret = {200: answers("What signs.", "SecretDocument"), **problems(422, 503)}
    of_one = {**secret, **problems(404)}
    rotation = json_body("SecretRotation", {"in an hour": {"overlap_s": 3600}}, required=False)
    of_body = problems(400, 413, 415)
    return [
        operation(
            Scope.ADMIN,
            "POST",
            PATH,
            routes.add_endpoint,
            TAG,
            "Add a webhook endpoint",
            {
                201: answers("The endpoint, with what signs.", "NewEndpointDocument", "Location"),
                **of_body,
                **problems(409, 422, 503, meaning={409: _TOO_MANY}),
            },
            body=json_body("EndpointSubmission", {"every job": _EXAMPLE}),
        ),
        operation(
            Scope.ADMIN,
            "GET",
            PATH,
            routes.list_endpoints,
            TAG,
            "List webhook endpoints, the oldest first",
            {200: answers("The endpoints.", "EndpointsDocument"), **problems(422, 503)},
        ),
        operation(
            Scope.ADMIN,
            "GET",
            _ONE,
            routes.get_endpoint,
            TAG,
            "Look at a webhook endpoint",
            shown,
            parameters=(endpoint_id,),
        ),
        operation(
            Scope.ADMIN,
            "PATCH",
            _ONE,
            routes.change_endpoint,
            TAG,
            "Change a webhook endpoint, disable or enable it",
            {**shown, **of_body},
            parameters=(endpoint_id,),
            body=json_body("EndpointChange", {"enable": {"enabled": True}}),
        ),
        operation(
            Scope.ADMIN,
            "DELETE",
            _ONE,
            routes.remove_endpoint,
            TAG,
            "Remove a webhook endpoint",
            {204: {"description": "It is gone."}, **problems(404, 422, 503)},
            parameters=(endpoint_id,),
        ),
        operation(
            Scope.ADMIN,
            "GET",
            f"{_ONE}/secret",
            routes.get_endpoint_secret,
            TAG,
            "Look at what signs an endpoint's messages",
            of_one,
            parameters=(endpoint_id,),
        ),
        operation(
            Scope.ADMIN,
            "POST",
            f"{_ONE}/rotate-secret",
            routes.rotate_endpoint_secret,
            TAG,
            "Rotate an endpoint's secret",
            {**of_one, **of_body},
            parameters=(endpoint_id,),
            body=rotation,
        ),
        operation(
            Scope.ADMIN,
            "GET",
            _OWN,
            routes.get_webhook_secret,
            TAG,
            "Look at what signs messages to addresses that jobs name",
            secret,
        ),
        operation(
            Scope.ADMIN,
            "POST",
            f"{_OWN}/rotate",
            routes.rotate_webhook_secret,
            TAG,
            "Rotate what signs messages to addresses that jobs name",
            {**secret, **of_body},
            body=rotation,
        ),
    ]
