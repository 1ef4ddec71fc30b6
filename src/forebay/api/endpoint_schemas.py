"""What the routes about webhook endpoints take and give."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from forebay.api.schemas import Body, Document, Url
from forebay.core.webhook import DEFAULT_EVENTS, WebhookEvent
from forebay.core.webhook_endpoint import OVERLAP_S

DESCRIPTION_MOST_CHARS = 256
OVERLAP_MOST_S = 7 * 86_400.0
"""A secret that has leaked should end some day, whatever overlap somebody asks for."""

Events = Annotated[list[Annotated[WebhookEvent, Field(strict=False)]], Field(min_length=1)]
Description = Annotated[str, Field(max_length=DESCRIPTION_MOST_CHARS)]

_URL = "Where messages are sent, by `POST`: an https address that is not of a private network."
_EVENTS = "What it hears of: `started`, `output` (of handlers that emit), `completed` (any final state)."
_DESCRIPTION = "Yours, for people."


class EndpointSubmission(Body):
    """A webhook endpoint for `POST /v1/webhook-endpoints`."""

    url: Url = Field(description=_URL)
    events: Events = Field(list(DEFAULT_EVENTS), description=_EVENTS)
    description: Description = Field("", description=_DESCRIPTION)


class EndpointChange(Body):
    """What is left out, or null, stays as it is."""

    url: Url | None = Field(None, description=_URL)
    events: Events | None = Field(None, description=_EVENTS)
    description: Description | None = Field(None, description=_DESCRIPTION)
    enabled: bool | None = Field(None, description="False: it is told nothing. True: it is, with a clean sheet.")


class SecretRotation(Body):
    overlap_s: Annotated[float, Field(ge=0, le=OVERLAP_MOST_S, allow_inf_nan=False)] = Field(
        OVERLAP_S, description="Seconds for which the secret so far goes on to sign beside the new one."
    )


class EndpointDocument(Document):
    id: str
    url: str
    events: list[WebhookEvent]
    description: str | None = None
    enabled: bool
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    disabled_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    disabled_reason: str | None = Field(None, description="Why it is not enabled.")
    failing_since: str | None = Field(
        None,
        description="Since then nothing was taken that was sent to it.",
        json_schema_extra={"format": "date-time"},
    )


class NewEndpointDocument(EndpointDocument):
    secret: str = Field(description="What signs the messages to it: `whsec_...`.")


class EndpointsDocument(Document):
    endpoints: list[EndpointDocument] = Field(description="The oldest first.")


class OldSecret(Document):
    secret: str
    until: str = Field(json_schema_extra={"format": "date-time"})


class SecretDocument(Document):
    """What signs now."""

    secret: str
    previous: OldSecret | None = Field(None, description="While it goes on to sign beside the new one.")
