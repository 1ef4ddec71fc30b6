"""Links of the OpenAPI document: what an answer names, and which operations take it (OpenAPI 3.1 section 4.8.20)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_JOBS = {"JobDocument", "SimpleDocument"}
_PLACES: Mapping[str, str] = {"job_id": "$response.body#/id", "request_id": "$response.body#/id"}
"""Where a job's document holds the value of a path parameter. A list has ids too, but it may be empty."""


def add_links(document: Mapping[str, Any]) -> None:
    """To each answer that tells of a job which its request did not name: a link to every operation whose path takes
    its id. A `PUT` takes none, since its caller chooses the id."""
    links = {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {name: _PLACES[name] for name in names},
        }
        for path, method, operation in _operations(document)
        if method != "put" and (names := re.findall(r"{(\w+)}", path)) and set(names) <= _PLACES.keys()
    }
    for path, method, operation in _operations(document):
        for response in operation["responses"].values():
            if not (method == "get" and "{" in path) and _kind(response) in _JOBS:
                response["links"] = links


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _kind(response: Mapping[str, Any]) -> str:
    """The component that an answer is."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]
