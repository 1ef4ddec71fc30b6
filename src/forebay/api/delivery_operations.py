"""What the OpenAPI document says of webhook deliveries."""

from __future__ import annotations

from typing import Any

from forebay.api.delivery_routes import DeliveryRoutes
from forebay.api.describe import answers, operation, path_parameter, problems, query_parameter
from forebay.api.endpoint_operations import TAG
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX
from forebay.core.api_key import Scope
from forebay.core.delivery import DeliveryStatus

_FILTERS = (
    query_parameter("status", "Only in this state.", type="string", enum=list(DeliveryStatus)),
    query_parameter("endpoint", "Only to the endpoint of this id."),
    query_parameter("since", "Only of what was at this time, or later.", type="string", format="date-time"),
    query_parameter("cursor", "`next_cursor` of an earlier answer."),
)


def operations(routes: DeliveryRoutes) -> list[dict[str, Any]]:
    """The arguments of `app.Route`, in the order in which the router tries them."""
    job_id = path_parameter("job_id", "As the submission answered it; the id of a batch, too.")
    named = (job_id, path_parameter("delivery_id", "As the list of deliveries says it; the `webhook-id`."))
    limit = query_parameter("limit", "How many.", type="integer", minimum=1, maximum=LIMIT_MAX, default=LIMIT_DEFAULT)
    return [
        operation(
            Scope.READ,
            "GET",
            "/v1/jobs/{job_id}/deliveries",
            routes.list_job_deliveries,
            TAG,
            "Show who was told of a job",
            {200: answers("The deliveries.", "DeliveriesDocument"), **problems(404, 410, 422, 503)},
            parameters=(job_id,),
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/jobs/{job_id}/deliveries/{delivery_id}",
            routes.get_delivery,
            TAG,
            "Show a delivery with what is sent",
            {200: answers("The delivery.", "DeliveryDetailDocument"), **problems(404, 410, 422, 503)},
            parameters=named,
        ),
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/jobs/{job_id}/deliveries/{delivery_id}/redeliver",
            routes.redeliver,
            TAG,
            "Send a delivery again",
            {202: answers("The delivery.", "DeliveryDocument"), **problems(404, 410, 422, 503)},
            parameters=named,
        ),
        operation(
            Scope.READ,
            "GET",
            "/v1/deliveries",
            routes.list_deliveries,
            TAG,
            "List deliveries, oldest first",
            {200: answers("The deliveries.", "DeliveriesDocument"), **problems(422, 503)},
            parameters=(*_FILTERS, limit),
        ),
        operation(
            Scope.SUBMIT,
            "POST",
            "/v1/deliveries/redeliver",
            routes.redeliver_many,
            TAG,
            "Send many deliveries again",
            {200: answers("What was done.", "RedeliveredDocument"), **problems(422, 503)},
            parameters=_FILTERS,
        ),
    ]
