"""`forebay submit`: one input in, its result out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.cli.inputs import read_input
from forebay.cli.options import AsJson, Url
from forebay.core.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import Console

    from forebay.cli.service import Service


def submit(
    model: Annotated[str, typer.Argument(help="Name of a model; `forebay models ls` lists them.", show_default=False)],
    input: Annotated[
        str,
        typer.Argument(
            metavar="FILE|TEXT|-", help="A file, a text in quotes, or - for standard input.", show_default=False
        ),
    ],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the result, or print the job's id at once.")
    ] = True,
    as_json: AsJson = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the model; may be repeated."),
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Send the argument as text even if a file has that name.")
    ] = False,
    url: Url = None,
) -> None:
    """Submit one input and show its result. Exit code 0 only if it succeeded.

    The result goes to standard output, everything else to standard error.
    """
    from forebay.cli.screen import console, print_json
    from forebay.cli.service import Service, service_url

    given = read_input(input, as_text=text)
    parameters = _parameters(param or ())
    with Service(service_url(url)) as service:
        job = service.submit_body(model, given.body, given.media_type, parameters)
        if wait:
            job = _follow(service, job, console(err=True))
        if as_json:
            print_json(job)
        elif not wait:
            sys.stdout.write(f"{job['id']}\n")
        elif job["status"] == "succeeded":
            _print_output(service, job)
    if wait and job["status"] != "succeeded":
        raise typer.Exit(1)


def _parameters(given: Sequence[str]) -> list[tuple[str, str]]:
    parameters = []
    for one in given:
        name, separator, value = one.partition("=")
        if not name or not separator:
            raise InvalidRequest(f"--param {one!r}: expected NAME=VALUE, such as top_k=3")
        parameters.append((name, value))
    return parameters


def _follow(service: Service, job: dict[str, Any], screen: Console) -> dict[str, Any]:
    """Wait until the job is final and tell its states: with a spinner on a terminal, else a line for each."""
    from forebay.cli.service import wait_until_final

    shown = job["status"]
    if not screen.is_terminal:
        screen.print(f"{job['id']} {shown}")
    try:
        with screen.status(f"{job['id']} {shown}") as status:

            def on_change(job: dict[str, Any]) -> None:
                nonlocal shown
                if job["status"] == shown:
                    return
                shown = job["status"]
                status.update(f"{job['id']} {shown}")
                if not screen.is_terminal:
                    screen.print(f"{job['id']} {shown}")

            job = wait_until_final(service, job, on_change, time.sleep)
    except KeyboardInterrupt:
        screen.print(f"no longer waiting; the job goes on: forebay jobs get {job['id']}")
        raise typer.Exit(130) from None
    screen.print(ending(job))
    return job


def ending(job: dict[str, Any]) -> str:
    """`done in 0.21 s (queued 0.01 s, inference 0.02 s, batch of 4)`, or why it failed."""
    from forebay.cli.screen import visible

    if job["status"] == "succeeded":
        measured = job.get("metrics", {})
        parts = [f"queued {measured['queue_s']:.3f} s"] if "queue_s" in measured else []
        parts += [f"inference {measured['predict_s']:.3f} s"] if "predict_s" in measured else []
        parts += [f"batch of {measured['batch_size']}"] if "batch_size" in measured else []
        details = f" ({', '.join(parts)})" if parts else ""
        return f"done in {took_s(job):.3f} s{details}"
    error = job.get("error", {})
    why = f": {error.get('message', '')} ({error.get('code', '')})" if error else ""
    tries = job.get("attempts", 0)
    after = f" after {tries} attempt{'s' if tries != 1 else ''}" if tries else ""
    return visible(f"{job['status']}{after}{why}")


def took_s(job: dict[str, Any]) -> float:
    """From acceptance to the final state, or until now."""
    end = _at(job["finished_at"]) if "finished_at" in job else datetime.now(UTC)
    return max(0.0, (end - _at(job["created_at"])).total_seconds())


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _print_output(service: Service, job: dict[str, Any]) -> None:
    from forebay.cli.screen import print_json

    if "output" in job:
        print_json(job["output"])
    else:  # of another media type than JSON
        sys.stdout.flush()
        sys.stdout.buffer.write(service.result(job["id"]))
