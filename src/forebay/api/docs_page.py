"""/docs: one page without scripts and without anything from elsewhere, so that it works on a machine without a network.

FastAPI's own pages (Swagger UI, ReDoc) load theirs from a content delivery network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import msgspec

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#f4f6f8;padding:.7rem;overflow:auto;border-radius:4px}
details{border:1px solid #d5dbe1;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .9rem .15rem 0;vertical-align:top}
.verb{display:inline-block;min-width:3.5rem;font-weight:700;color:#0b5cad}
@media(prefers-color-scheme:dark){body{color:#dbe2ea;background:#14181d}pre{background:#1d242c}
details{border-color:#38424d}.verb{color:#6db3f8}a{color:#6db3f8}}
"""


def docs_page(document: Mapping[str, Any]) -> bytes:
    """The OpenAPI document as HTML: by tag, each operation with its parameters, a request to paste and its answers."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        *(f"<p>{_words(text)}</p>" for text in info["description"].split("\n\n")),
        "<p>For programs: <a href='openapi.json'>openapi.json</a>. Below, FOREBAY stands for this service's "
        "address, such as http://127.0.0.1:8000.</p>",
    ]
    for tag in document.get("tags", ()):
        parts.append(f"<h2>{escape(tag['name'])}</h2>")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation.get("tags", ()):
                    parts.extend(_operation(method.upper(), path, operation))
    return "".join(parts).encode()


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><span class=verb>{method}</span> <code>{escape(path)}</code> "
    yield f"{escape(operation['summary'])}</summary>"
    if operation.get("description"):
        yield f"<p>{_words(operation['description'])}</p>"
    yield from _table(
        (f"{one['name']} <small>({one['in']})</small>", _words(one.get("description", "")))
        for one in operation.get("parameters", ())
    )
    yield from _requests(method, path, operation)
    yield from _table((status, _words(one["description"])) for status, one in sorted(operation["responses"].items()))
    yield "</details>"


def _requests(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, example in content.get("examples", {}).items():
            data = msgspec.json.encode(example["value"]).decode().replace("'", "'\\''")
            line = f"curl -X {method} \"$FOREBAY{path}\" -H 'content-type: {media_type}' -d '{data}'"
            yield f"<p>{escape(name)}</p><pre>{escape(line)}</pre>"
        if not content.get("examples"):
            line = f"curl -X {method} \"$FOREBAY{path}\" -H 'content-type: {media_type}' --data-binary @FILE"
            yield f"<pre>{escape(line)}</pre>"


def _table(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    cells = "".join(f"<tr><th>{name}<td>{meaning}" for name, meaning in rows)
    if cells:
        yield f"<table>{cells}</table>"


def _words(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
