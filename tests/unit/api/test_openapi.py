"""The OpenAPI document is valid, complete and true; the page made from it needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute
from tests.unit.api.conftest import Api, spec
from tests.unit.api.test_submitting import PNG

from forebay.catalog import Catalog

ROUTES = {
    ("post", "/inference"),
    ("get", "/status/{request_id}"),
    ("get", "/result/{request_id}"),
    ("post", "/v1/jobs"),
    ("post", "/v1/models/{model}/jobs"),
    ("get", "/v1/jobs"),
    ("get", "/v1/jobs/{job_id}"),
    ("get", "/v1/jobs/{job_id}/result"),
    ("post", "/v1/jobs/{job_id}/cancel"),
    ("delete", "/v1/jobs/{job_id}"),
    ("put", "/v1/jobs/{job_id}"),
    ("get", "/v1/jobs/{job_id}/events"),
    ("post", "/v1/jobs/{job_id}/retry"),
    ("get", "/v1/dead-letters"),
    ("get", "/v1/dead-letters/export"),
    ("post", "/v1/dead-letters/redrive"),
    ("get", "/v1/jobs/{job_id}/deliveries"),
    ("get", "/v1/jobs/{job_id}/deliveries/{delivery_id}"),
    ("post", "/v1/jobs/{job_id}/deliveries/{delivery_id}/redeliver"),
    ("get", "/v1/deliveries"),
    ("post", "/v1/deliveries/redeliver"),
    ("get", "/v1/dead-letters/{job_id}"),
    ("post", "/v1/dead-letters/{job_id}/redrive"),
    ("get", "/v1/queues"),
    ("get", "/v1/jobs/{job_id}/explain"),
    ("post", "/v1/batches"),
    ("put", "/v1/batches/{batch_id}"),
    ("get", "/v1/batches"),
    ("get", "/v1/batches/{batch_id}"),
    ("get", "/v1/batches/{batch_id}/results"),
    ("post", "/v1/batches/{batch_id}/cancel"),
    ("post", "/v1/webhook-endpoints"),
    ("get", "/v1/webhook-endpoints"),
    ("get", "/v1/webhook-endpoints/{endpoint_id}"),
    ("patch", "/v1/webhook-endpoints/{endpoint_id}"),
    ("delete", "/v1/webhook-endpoints/{endpoint_id}"),
    ("get", "/v1/webhook-endpoints/{endpoint_id}/secret"),
    ("post", "/v1/webhook-endpoints/{endpoint_id}/rotate-secret"),
    ("get", "/v1/webhook-secret"),
    ("post", "/v1/webhook-secret/rotate"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/health"),
}


@pytest.fixture
async def document(api: Api) -> Any:
    answer = await api.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def everything(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from everything(child)


async def test_every_route_is_in_it_and_nothing_else(document: Any) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == ROUTES


async def test_what_is_not_in_it_are_its_own_pages(api: Api, document: Any) -> None:
    routes = [route for route in api.app.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(api.app.routes)
    served = {(method.lower(), route.path) for route in routes for method in route.methods or ()}
    assert served - ROUTES == {("get", "/"), ("get", "/docs"), ("get", "/openapi.json")}


async def test_it_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"] == "Forebay"
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert operation["responses"]
        assert all(response["description"] for response in operation["responses"].values())


async def test_every_schema_in_it_is_a_schema(document: Any) -> None:
    schemas = [node["schema"] for node in everything(document) if isinstance(node, dict) and "schema" in node]
    for schema in [*schemas, *document["components"]["schemas"].values()]:
        assert jsonschema_rs.meta.is_valid(schema)


async def test_what_is_given_is_absent_and_never_null(document: Any) -> None:
    taken = {"JobSubmission", "SimpleSubmission", "LineSubmission", "EndpointChange"}
    for name, schema in document["components"]["schemas"].items():
        if name not in taken:
            assert {"type": "null"} not in list(everything(schema)), name


async def test_every_reference_leads_somewhere(document: Any) -> None:
    references = [node["$ref"] for node in everything(document) if isinstance(node, dict) and "$ref" in node]
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


async def test_every_component_is_used(document: Any) -> None:
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


async def test_what_a_submission_answers_is_linked_to_all_that_takes_its_id(document: Any) -> None:
    taking = {
        operation["operationId"]: re.findall(r"{(\w+)}", path)
        for method, path, operation in operations(document)
        if method != "put" and re.search(r"{(job_id|request_id)}$|{job_id}/\w+$", path)
    }
    assert {"get_job", "get_output", "watch_job", "cancel_job", "get_status", "get_result"} <= set(taking)
    for path in ("/v1/jobs", "/v1/models/{model}/jobs", "/inference"):
        for status in ("200", "202"):
            links = document["paths"][path]["post"]["responses"][status]["links"]
            assert {name: list(link["parameters"]) for name, link in links.items()} == taking
            assert all(link["operationId"] == name for name, link in links.items())
            assert {text for link in links.values() for text in link["parameters"].values()} == {"$response.body#/id"}


async def test_an_endpoint_that_is_added_is_linked_to_all_that_takes_its_id(document: Any) -> None:
    links = document["paths"]["/v1/webhook-endpoints"]["post"]["responses"]["201"]["links"]
    taking = {operation["operationId"] for _, path, operation in operations(document) if "{endpoint_id}" in path}
    assert len(taking) == 5
    assert set(links) == taking


async def test_the_document_takes_the_same_idempotency_keys_as_the_service(api: Api, document: Any) -> None:
    (key,) = [one for one in document["paths"]["/v1/jobs"]["post"]["parameters"] if one["name"] == "Idempotency-Key"]
    taken = jsonschema_rs.validator_for(key["schema"])
    texts = [
        "a",
        '"b"',
        '"a b"',
        "a b",
        '"',
        '""',
        '"a\\\\"',
        '"a\\"',
        "a,b",
        "a;b",
        "x" * 255,
        "x" * 256,
        f'"{"x" * 256}"',
    ]
    for number, text in enumerate(texts):
        job = {"model": "echo", "input": number}
        answer = await api.http.post("/v1/jobs", json=job, headers={"idempotency-key": text})
        assert (answer.status_code == 202) == taken.is_valid(text), text


async def test_operation_ids_are_unique_and_chosen(document: Any) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z]+(_[a-z]+){0,2}", one) for one in ids)


async def test_every_path_parameter_is_declared(document: Any) -> None:
    for _, path, operation in operations(document):
        declared = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize("path", ["/v1/jobs", "/inference"])
async def test_every_example_fits_its_schema_and_works(api: Api, document: Any, path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert set(content["examples"]) == {"echo", "photo", "sentiment"}
    whole = {**content["schema"], "components": document["components"]}
    for example in content["examples"].values():
        jsonschema_rs.validator_for(whole).validate(example["value"])
        answer = await api.http.post(path, json=example["value"])
        assert answer.status_code == 202, answer.text


async def test_errors_are_problems(document: Any) -> None:
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], path


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]


async def test_the_page_shows_every_operation_and_needs_nothing_from_elsewhere(api: Api) -> None:
    answer = await api.http.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page()
    page.feed(answer.text)
    assert page.links == ["openapi.json"]
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for method, path in ROUTES:
        assert f"{method.upper()}</span> <code>{path}</code>" in answer.text
    assert "Setup took two minutes and the picture is great." in answer.text


def rows_of(page: str, path: str) -> dict[str, str]:
    """The rows of an operation's tables, by name, as text."""
    part = page.partition(f"<code>{path}</code>")[2].partition("</details>")[0]
    found = re.findall(r"<tr><th>(.*?)(?=<tr>|</table>)", part)
    cells = [re.sub(r"<small>.*?</small>|</?code>", "", row).split("<td>") for row in found]
    return {name.strip(): unescape("; ".join(rest)) for name, *rest in cells}


async def test_the_page_shows_the_fields_of_a_body_with_type_default_and_meaning(api: Api) -> None:
    page = (await api.http.get("/docs")).text
    fields = rows_of(page, "/v1/jobs")
    assert fields["model"].startswith("string, required; Name of a model")
    assert fields["input"].startswith("any JSON, required; What the model's input_schema says")
    assert fields["lane"].startswith("high | normal | low, default normal; Where it waits")
    assert fields["start_within_s"].startswith("number > 0 ≤ 86400; Seconds")
    assert fields["run_timeout_s"].startswith("number > 0 ≥ 1 ≤ 86400; Seconds")
    assert fields["retain_s"].startswith("number > 0 ≥ 60 ≤ 518400; Seconds")
    assert fields["metadata"].startswith("object; Yours")
    assert fields["version"].startswith("string; ")
    assert fields["parameters"].startswith("object; ")
    assert set(rows_of(page, "/inference")) >= {"model_name", "data"}
    query = rows_of(page, "/v1/models/{model}/jobs")
    assert query["model"].startswith("string, required")
    assert all(query[name] == fields[name] for name in ("version", "lane", "start_within_s", "run_timeout_s"))


async def test_the_lines_to_paste_hold_real_names_and_nothing_long(api: Api) -> None:
    page = (await api.http.get("/docs")).text
    lines = [unescape(line) for line in re.findall("<pre>(curl.*?)</pre>", page)]
    raw = [line for line in lines if "/v1/models/" in line]
    assert raw == [
        "curl -X POST \"$FOREBAY/v1/models/echo/jobs\" -H 'content-type: application/json' "
        '-d \'{"any":["JSON",1,true,null]}\'',
        "curl -X POST \"$FOREBAY/v1/models/photo/jobs\" -H 'content-type: image/jpeg' --data-binary @cat.jpg",
        "curl -X POST \"$FOREBAY/v1/models/sentiment/jobs\" -H 'content-type: text/plain' "
        "-d 'Setup took two minutes and the picture is great.'",
    ]
    assert all("{model}" not in line and len(line) < 250 for line in lines)
    assert sum("..." in line for line in lines) == 3
    assert page.count("shortened at the dots") == 3


async def test_the_page_of_a_service_without_models_has_no_braces_in_addresses(make_api: Any) -> None:
    page = (await make_api(catalog=Catalog(specs={})).http.get("/docs")).text
    assert "$FOREBAY/v1/models/MODEL/jobs" in page


async def test_every_raw_example_works(api: Api, document: Any) -> None:
    content = document["paths"]["/v1/models/{model}/jobs"]["post"]["requestBody"]["content"]
    shown = {model: (kind, one) for kind, found in content.items() for model, one in found.get("examples", {}).items()}
    assert set(shown) == {"echo", "photo", "sentiment"}
    for model, (media_type, example) in shown.items():
        value = example.get("value", "")
        body = PNG if "value" not in example else value if isinstance(value, str) else json.dumps(value)
        headers = {"content-type": media_type}
        answer = await api.http.post(f"/v1/models/{model}/jobs", content=body, headers=headers)
        assert answer.status_code == 202, answer.text


async def test_the_page_escapes_what_models_say(make_api: Any) -> None:

    name = "a<script>alert(1)</script>'"
    api: Api = make_api(catalog=Catalog(specs={name: {"1": spec(name, "json", "python")}}))
    page = Page()
    page.feed((await api.http.get("/docs")).text)
    assert "script" not in page.tags


async def test_an_upload_speaks_of_a_batch_and_not_of_a_job(document: Any) -> None:
    uploads = [document["paths"]["/v1/batches"]["post"], document["paths"]["/v1/batches/{batch_id}"]["put"]]
    for upload in uploads:
        assert "batch_differs" in upload["responses"]["409"]["description"]
        assert "idempotency_key_reused" in upload["responses"]["422"]["description"]
        described = [header["description"] for header in upload["responses"]["202"]["headers"].values()]
        assert not [text for text in described if "job" in text]
    [key] = [one for one in uploads[0]["parameters"] if one["name"] == "Idempotency-Key"]
    assert "one batch" in key["description"]
