"""Holds every answer against the OpenAPI document: a status, media type or member that it does not name is a bug."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVERYWHERE = {"400", "404", "405", "413", "414", "415", "431", "500"}
"""Refusals that can meet any request, before its operation is known or whatever it does."""


class Promised:
    def __init__(self, app: ASGIApp, document: Mapping[str, Any]) -> None:
        self._app = app
        self._document = document
        # Open in the document, so that later members break no client; closed here, so that none is forgotten in it.
        self._components = {
            name: {**schema, "additionalProperties": False} if "properties" in schema else schema
            for name, schema in document["components"]["schemas"].items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {}
        body = b""

        async def recording(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")
            await send(message)

        await self._app(scope, receive, recording)
        if start:
            self._check(scope, start, body)

    def _check(self, scope: Scope, start: Message, body: bytes) -> None:
        status = str(start["status"])
        media_type = dict(start["headers"]).get(b"content-type", b"").decode().partition(";")[0]
        path = getattr(scope.get("route"), "path", None)
        operation = self._document["paths"].get(path, {}).get(scope["method"].lower())
        if operation is None or (status in EVERYWHERE and status not in operation["responses"]):
            if int(status) >= 400:
                assert media_type == "application/problem+json", f"{status} as {media_type}"
                self._fits({"$ref": "#/components/schemas/Problem"}, body)
            return
        assert status in operation["responses"], f"{scope['method']} {path} does not document {status}"
        response = operation["responses"][status]
        for name, value in response.get("headers", {}).items():
            told = name.lower().encode() in dict(start["headers"])
            assert told or not value.get("required"), f"{status} without {name}"
        if "content" not in response:
            assert (body, media_type) == (b"", "")
            return
        content = response["content"].get(media_type) or response["content"].get("*/*")
        assert content is not None, f"{path} does not document {media_type} for {status}"
        if "itemSchema" in content and media_type.endswith("ndjson"):
            for line in body.splitlines():
                self._fits(content["itemSchema"], line)
        elif media_type.endswith("json"):
            self._fits(content["schema"], body)

    def _fits(self, schema: Mapping[str, Any], body: bytes) -> None:
        whole = {**schema, "components": {"schemas": self._components}}
        jsonschema_rs.validator_for(whole).validate(json.loads(body))
