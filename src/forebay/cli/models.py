"""`forebay models`: what can be asked for, and whether a models directory is in order."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.cli.options import AsJson, SettingsCommand, Url, settings_of

if TYPE_CHECKING:
    from forebay.core.model import ModelSpec

models = typer.Typer(
    name="models",
    help="List models, look at one, check a models directory.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@models.command()
def ls(as_json: AsJson = False, url: Url = None) -> None:
    """List the models that a running service has."""
    from forebay.cli.screen import console, print_json, styled, table
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.models()
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no models; put one into the models directory (setting models_dir) and start again")
        return
    rows = [
        (
            model["name"],
            model.get("version", ""),
            model.get("task", ""),
            model.get("runtime", ""),
            styled(model["status"]),
            model.get("reason", ""),
        )
        for model in found
    ]
    console().print(table(("name", "version", "task", "runtime", "status", "reason"), rows))


@models.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show one model: what it takes, what it gives, its limits."""
    from forebay.cli.screen import console, pairs, print_json, told
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        model = service.model(name)
    if as_json:
        print_json(model)
        return
    schemas = {key: value for key, value in model.items() if key.endswith("_schema")}
    rows = [
        (key, _labels(value) if key == "labels" else told(value)) for key, value in model.items() if key not in schemas
    ]
    console().print(pairs(rows))
    for key, schema in schemas.items():
        console().print(f"\n{key}")
        print_json(schema)


@models.command(cls=SettingsCommand)
def validate(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A models directory. Default models_dir.", show_default=False)
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="Load each model too, as the service would; it runs the code of handlers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a models directory without a service. Exit code 1 if anything is wrong.

    Without --load no model is loaded and no code runs: `described` says that the description is in order.
    """
    from forebay.catalog import read_models
    from forebay.cli.screen import console, print_json, styled

    settings = settings_of(context)
    catalog = read_models(Path.cwd() / folder if folder else settings.models_dir, settings.trusted_models)
    specs = [spec for versions in catalog.specs.values() for spec in versions.values()]
    problems = {name: list(found) for name, found in catalog.problems.items()}
    if load:
        with _standard_output_kept():
            for spec in specs:
                for problem in _load(spec):
                    problems.setdefault(spec.name, []).append(problem)
    status = "ready" if load else "described"
    if as_json:
        described = [_described(spec, "unavailable" if spec.name in problems else status) for spec in specs]
        print_json({"models": described, "problems": problems})
    else:
        screen = console()
        for spec in specs:
            if spec.name not in problems:
                screen.print(styled(status), f"{spec.name} {spec.version} ({spec.task}, {spec.runtime})")
        for name, found in problems.items():
            for problem in found:
                screen.print(styled("unavailable"), f"{name}: {problem}")
        if not specs and not problems:
            screen.print(
                "no models here: each is a folder with a folder per version in it, such as sentiment/1/model.onnx"
            )
        if specs and not load:
            console(err=True).print("no model was loaded; --load does that too")
    if problems or not specs:
        raise typer.Exit(1)


@contextlib.contextmanager
def _standard_output_kept() -> Iterator[None]:
    """What a model prints goes to standard error, also what it prints beneath Python: our output may be a program's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _load(spec: ModelSpec) -> Iterator[str]:
    """What is wrong with the model's files, if anything; as the runner would find it."""
    from forebay.core.errors import Misconfigured
    from forebay.runtimes import runtime
    from forebay.tasks import task

    try:
        task(spec.task).codec(spec)
        runtime(spec.runtime).load(spec).close()
    except Misconfigured as error:
        yield error.message
    except Exception as error:  # model code may raise anything; it is a finding like the others
        yield f"version {spec.version} cannot be loaded: {type(error).__name__}: {error}"


def _described(spec: ModelSpec, status: str) -> dict[str, Any]:
    described = {"name": spec.name, "version": spec.version, "task": spec.task, "runtime": spec.runtime}
    return {**described, "status": status}


def _labels(labels: list[str]) -> str:
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(labels[:5]) + more
