"""What `forebay up` says once it is ready: where things are, and lines to paste that work with the models found."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.text import Text

import forebay
from forebay.assembly import Addresses
from forebay.assembly.unserved import unknown_trust, unserved
from forebay.catalog import Catalog, read_models
from forebay.cli.program import program
from forebay.cli.screen import styled, visible
from forebay.core.errors import ForebayError
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.settings import Settings
from forebay.tasks import task

SURVIVES = {
    "process": "an accepted job survives a crash, not a power cut (--synchronous full: that too)",
    "flushed": "an accepted job survives a crash and a power cut",
    "memory": "jobs are lost at exit; for tests only",
}

SAMPLE_TEXT = "What a lovely day"
SAMPLE_PHOTO = Path("examples/samples/cat.jpg")


class Example(Struct, frozen=True):
    """A job to paste. `argument` is what `forebay submit` takes, "" where only JSON will do."""

    model: str
    argument: str
    curl: str


def print_banner(screen: Console, settings: Settings, addresses: Addresses, start_s: float) -> None:
    api = addresses.api_url
    lines = [
        ("data", f"{_near(addresses.data_dir)} (delete it to start anew)"),
        ("queue", f"{settings.queue}, durability {addresses.durability}: {SURVIVES.get(addresses.durability, '')}"),
        ("API", f"{api}   docs {api}/docs   health {api}/health"),
        ("metrics", f"{addresses.admin_url}/metrics"),
    ]
    screen.print(f"forebay {forebay.__version__} is ready after {start_s:.1f} s")
    for name, text in lines:
        screen.print(f"  {name:9}{text}")
    catalog = _read(settings)
    found = [*map(_reported, addresses.models), *_unserved(catalog, settings)]
    for name, line in zip(["models", *[""] * len(found)], found, strict=False):
        screen.print(Text.assemble(f"  {name:9}", line))
    if not found:
        screen.print(
            f"  {'models':9}none in {_near(settings.models_dir)}; each is a folder, such as sentiment/1/model.onnx"
        )
    for unknown in unknown_trust(catalog, settings.trusted_models):
        screen.print(Text.assemble("  ", styled("warning"), f"  {visible(str(unknown))}"))
    example = find_example(catalog, addresses)
    if example is not None:
        screen.print("\nTry it:")
        if example.argument:
            url = "" if api == "http://127.0.0.1:8000" else f" --url {api}"
            screen.print(f"  {program()} submit {example.model} {shlex.quote(example.argument)}{url}")
        screen.print(f"  {example.curl}")
    keys = "Callers are asked for an API key" if addresses.asked_for_keys else "Nobody is asked for a key"
    screen.print(f"\n{keys} (`{program()} keys`). Ctrl-C stops it.")


def _reported(report: ModelReport) -> Text:
    reason = f": {visible(report.reason)}" if report.reason else ""
    return Text.assemble(f"{report.model} {report.version} ", styled(report.status.value), reason)


def _unserved(catalog: Catalog, settings: Settings) -> Iterator[Text]:
    """The models that were not even tried, and the versions."""
    for name, reason in unserved(catalog, settings.models).items():
        part = "in part " if name in catalog.specs else ""
        yield Text.assemble(f"{visible(name)} {part}", styled("unavailable"), f": {visible(reason)}")


def _read(settings: Settings) -> Catalog:
    try:
        return read_models(settings.models_dir, settings.trusted_models)
    except ForebayError:  # the folder has changed under us; the service tells of it where it matters
        return Catalog(specs={})


def find_example(catalog: Catalog, addresses: Addresses) -> Example | None:
    """A job for one of the models that are ready, a text if one takes it; None if none is."""
    ready = {report.model for report in addresses.models if report.status is ModelStatus.READY}
    found = [_example(addresses.api_url, catalog.resolve(name)) for name in catalog.names() if name in ready]
    return next(iter(sorted((one for one in found if one is not None), key=_ease)), None)


def _ease(example: Example) -> tuple[bool, bool]:
    return (not example.argument, SAMPLE_PHOTO.name in example.argument)


def _example(api: str, spec: ModelSpec) -> Example | None:
    kind = task(spec.task)
    media_types = kind.media_types(spec)
    url = f"'{api}/v1/models/{spec.name}/jobs'"
    if "text/plain" in media_types:
        text = shlex.quote(SAMPLE_TEXT)
        return Example(
            spec.name, SAMPLE_TEXT, f"curl -s {url} -H 'prefer: wait=10' -H 'content-type: text/plain' -d {text}"
        )
    if "image/jpeg" in media_types:
        if not SAMPLE_PHOTO.is_file():
            return None  # a line to paste must work, and we know of no photo here
        photo = str(SAMPLE_PHOTO)
        line = f"curl -s {url} -H 'prefer: wait=10' -H 'content-type: image/jpeg' --data-binary @{photo}"
        return Example(spec.name, photo, line)
    return _json_example(api, spec.name, kind.input_schema(spec))


def _json_example(api: str, model: str, schema: Mapping[str, Any]) -> Example | None:
    examples = schema.get("examples", ())
    if not isinstance(examples, Sequence) or not examples:
        return None
    body = shlex.quote(json.dumps({"model": model, "input": examples[0]}))
    line = f"curl -s '{api}/v1/jobs' -H 'prefer: wait=10' -H 'content-type: application/json' -d {body}"
    return Example(model, "", line)


def _near(path: Path) -> str:
    """Relative to here where that is shorter to read."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
