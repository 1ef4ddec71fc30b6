"""Routes about webhook deliveries."""

from __future__ import annotations

from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, Answer
from forebay.api.bodies import read_body
from forebay.api.deliveries import Deliveries, read_query
from forebay.api.queries import refuse_query
from forebay.api.tenancy import tenant_of
from forebay.core.delivery import DeliveryStatus
from forebay.core.errors import InvalidRequest

_FOUND = (JSON_TYPE, NO_STORE)


class DeliveryRoutes:
    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def list_job_deliveries(self, request: Request) -> Answer:
        """Each message about the job with its tries, in the order of what they tell."""
        refuse_query(request)
        tenant, job_id = tenant_of(request), request.path_params["job_id"]
        return Answer(200, await self._deliveries.of_job(tenant, job_id), _FOUND)

    async def get_delivery(self, request: Request) -> Answer:
        """With its `payload`: the message as it is sent, to the byte."""
        refuse_query(request)
        return Answer(200, await self._deliveries.one(*_named(request)), _FOUND)

    async def redeliver(self, request: Request) -> Answer:
        """Due now, whatever became of it, with as many tries before it as a new one; its id and bytes are the same."""
        refuse_query(request)
        return Answer(202, await self._deliveries.redeliver(*_named(request)), _FOUND)

    async def list_deliveries(self, request: Request) -> Answer:
        """Of all jobs and batches, the oldest first."""
        query = read_query(tenant_of(request), request.query_params.multi_items())
        return Answer(200, await self._deliveries.page(query), _FOUND)

    async def redeliver_many(self, request: Request) -> Answer:
        """Those that fit, the oldest first, for at most five seconds: then `next_cursor` says where to go on. Those
        that are parked, if no `status` is asked for."""
        if await read_body(request):
            raise InvalidRequest("this takes no body; filters go into the query")
        query = request.query_params.multi_items()
        asked = read_query(tenant_of(request), query, limited=False, status=DeliveryStatus.PARKED)
        return Answer(200, await self._deliveries.redeliver_many(asked), _FOUND)


def _named(request: Request) -> tuple[str, str, str]:
    return tenant_of(request), request.path_params["job_id"], request.path_params["delivery_id"]
