"""/docs: one page without scripts and without anything from elsewhere, so that it works on a machine without a network.

FastAPI's own pages (Swagger UI, ReDoc) load theirs from a content delivery network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import msgspec

LONGEST = 120
"""Characters of one text in an example; of a longer one, such as an image in base64, the beginning is shown."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#f4f6f8;padding:.7rem;overflow:auto;border-radius:4px}
details{border:1px solid #d5dbe1;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .9rem .15rem 0;vertical-align:top}
.verb{display:inline-block;min-width:3.5rem;font-weight:700;color:#0b5cad}
@media(prefers-color-scheme:dark){body{color:#dbe2ea;background:#14181d}pre{background:#1d242c}
details{border-color:#38424d}.verb{color:#6db3f8}a{color:#6db3f8}}
"""
_FILES = {"image/jpeg": "cat.jpg", "image/png": "cat.png", "image/webp": "cat.webp"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "maximum": "≤"}


def docs_page(document: Mapping[str, Any]) -> bytes:
    """The OpenAPI document as HTML: by tag, each operation with its parameters, the fields of its body, requests to
    paste and its answers."""
    schemas = document["components"]["schemas"]
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        *(f"<p>{_words(text)}</p>" for text in info["description"].split("\n\n")),
        "<p>For programs: <a href='openapi.json'>openapi.json</a>. Below, FOREBAY is this service's address:</p>"
        "<pre>export FOREBAY=http://127.0.0.1:8000</pre>",
    ]
    for tag in document.get("tags", ()):
        parts.append(f"<h2>{escape(tag['name'])}</h2>")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation.get("tags", ()):
                    parts.extend(_operation(method.upper(), path, operation, schemas))
    return "".join(parts).encode()


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><span class=verb>{method}</span> <code>{escape(path)}</code> "
    yield f"{escape(operation['summary'])}</summary>"
    if operation.get("description"):
        yield f"<p>{_words(operation['description'])}</p>"
    yield from _table(
        _field(f"{one['name']} <small>({one['in']})</small>", one | _schema(one), one.get("required", False), schemas)
        for one in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {})
    fields = _resolved(body.get("application/json", {}).get("schema", {}), schemas)
    yield from _table(
        _field(name, field, name in fields.get("required", ()), schemas)
        for name, field in fields.get("properties", {}).items()
    )
    yield from _requests(method, path, body)
    yield from _table((status, _words(one["description"])) for status, one in sorted(operation["responses"].items()))
    yield "</details>"


def _requests(method: str, path: str, body: Mapping[str, Any]) -> Iterator[str]:
    """A line of curl for each model. Braces in an address would be curl's own, so a model's name stands there."""
    examples = [
        (name, media_type, example)
        for media_type, content in body.items()
        for name, example in content.get("examples", {}).items()
    ]
    for name, media_type, example in examples:
        address = path.replace("{model}", quote(name, safe=""))
        data, whole = _data(media_type, example)
        line = f"curl -X {method} \"$FOREBAY{address}\" -H 'content-type: {media_type}' {data}"
        note = "" if whole else ": shortened at the dots; openapi.json has all of it"
        yield f"<p>{escape(name)}{note}</p><pre>{escape(line)}</pre>"
    if body and not examples:
        media_type = next(iter(body))
        line = f"curl -X {method} \"$FOREBAY{path.replace('{model}', 'MODEL')}\" -H 'content-type: {media_type}'"
        yield f"<pre>{escape(line)} --data-binary @FILE</pre>"


def _data(media_type: str, example: Mapping[str, Any]) -> tuple[str, bool]:
    """curl's words for a body, and whether they say all of it."""
    if "value" not in example:
        return f"--data-binary @{_FILES.get(media_type, 'FILE')}", True
    shown = _shortened(example["value"])
    text = msgspec.json.encode(shown).decode() if media_type == "application/json" else str(shown)
    return "-d '" + text.replace("'", "'\\''") + "'", shown == example["value"]


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    return f"{value[:24]}..." if isinstance(value, str) and len(value) > LONGEST else value


def _field(name: str, field: Mapping[str, Any], required: bool, schemas: Mapping[str, Any]) -> tuple[str, str, str]:
    """A row: the name, what it may be, what it means."""
    default = field.get("default")
    said = [_kind(field, schemas), "required" if required else "", f"default {default}" if default else ""]
    return name, escape(", ".join(part for part in said if part)), _words(field.get("description", ""))


def _schema(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a parameter; of one whose text is JSON, that of the JSON."""
    found: Mapping[str, Any] = parameter.get("schema") or parameter["content"]["application/json"]["schema"]
    return found


def _kind(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    schema = _resolved(schema, schemas)
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(one, schemas) for one in schema["anyOf"] if one != {"type": "null"})
    bounds = [f"{sign} {schema[word]:g}" for word, sign in _BOUNDS.items() if word in schema]
    return " ".join([str(schema.get("type", "any JSON")), *bounds])


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return schemas[reference.rpartition("/")[2]] if reference else schema


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    cells = "".join(f"<tr><th>{name}{''.join(f'<td>{cell}' for cell in cells)}" for name, *cells in rows)
    if cells:
        yield f"<table>{cells}</table>"


def _words(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
