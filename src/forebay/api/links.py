"""Links of the OpenAPI document: what an answer names, and which operations take it (OpenAPI 3.1 section 4.8.20)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_JOBS = {"JobDocument", "SimpleDocument"}
_BATCHES = {"BatchDocument", "UploadDocument"}
_ENDPOINTS = {"EndpointDocument", "NewEndpointDocument"}
_ID = "$response.body#/id"
_PLACES: Mapping[str, str] = {"job_id": _ID, "request_id": _ID, "batch_id": _ID, "endpoint_id": _ID}
"""Where a document holds the value of a path parameter. A list has ids too, but it may be empty."""


def add_links(document: Mapping[str, Any]) -> None:
    """To each answer that tells of a job, a batch or an endpoint, which its request did not name: a link to every
    operation whose path takes its id. A `PUT` takes none, since its caller chooses the id."""
    links = {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {name: _PLACES[name] for name in names},
        }
        for path, method, operation in _operations(document)
        if method != "put" and (names := re.findall(r"{(\w+)}", path)) and set(names) <= _PLACES.keys()
    }
    of_batches = {name: link for name, link in links.items() if "batch_id" in link["parameters"]}
    of_endpoints = {name: link for name, link in links.items() if "endpoint_id" in link["parameters"]}
    of_jobs = {name: link for name, link in links.items() if name not in {*of_batches, *of_endpoints}}
    for path, method, operation in _operations(document):
        for response in operation["responses"].values():
            if method in ("get", "patch") and "{" in path:
                continue
            if (kind := _kind(response)) in _JOBS:
                response["links"] = of_jobs
            elif kind in _BATCHES:
                response["links"] = of_batches
            elif kind in _ENDPOINTS:
                response["links"] = of_endpoints


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _kind(response: Mapping[str, Any]) -> str:
    """The component that an answer is."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]
