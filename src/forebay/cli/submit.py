"""`forebay submit`: one input in, its result out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from forebay.cli.inputs import TEXT, Input, is_json_document, read_input, read_json_input
from forebay.cli.options import AsJson, Url
from forebay.cli.program import program
from forebay.core.errors import ForebayError, InvalidRequest

if TYPE_CHECKING:
    from rich.console import Console

    from forebay.cli.connection import Refused
    from forebay.cli.service import Service


PATIENCE_S = 30.0
"""For a service that takes nothing: longer than a broker needs to come back, and not so long that it seems hung."""


class SubmitCommand(TyperCommand):
    """Says how to submit a text that begins like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By its name: where the class lives is typer's own affair, and has changed.
            if type(error).__name__ == "NoSuchOption" and hasattr(error, "message"):
                error.message += f"; a text that begins with - goes behind --: {program()} submit MODEL -- '-text'"
            raise


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
    input_json: Annotated[
        bool,
        typer.Option(
            "--input-json", help="The file, text or standard input is JSON: the job's `input`, for any model."
        ),
    ] = False,
    url: Url = None,
) -> None:
    """Submit one input and show its result. Exit code 0 only if it succeeded.

    The result goes to standard output, everything else to standard error.

    \b
    forebay submit image_classification photo.jpg -p top_k=3
    forebay submit text_classification 'What a lovely day'
    forebay submit text_classification --input-json '{"text": "One.", "text_pair": "Two."}'
    forebay submit my_model --input-json - < input.json
    """
    from forebay.cli.screen import console, print_json
    from forebay.cli.service import Service, service_url

    value = read_json_input(input, as_text=text) if input_json else None
    given = read_input(input, as_text=text) if not input_json else None
    parameters = _parameters(param or ())
    screen = console(err=True)
    with Service(service_url(url)) as service:
        if given is None:
            job = _accepted(lambda: service.submit_json(model, value, parameters), screen)
        else:
            job = _accepted(lambda: _submit_body(service, model, given, parameters), screen)
        if wait:
            job = _follow(service, job, screen)
        if as_json:
            print_json(job)
        elif not wait:
            sys.stdout.write(f"{job['id']}\n")
        elif job["status"] == "succeeded":
            _print_output(service, job)
    if wait and job["status"] != "succeeded":
        raise typer.Exit(1)


def _accepted(submission: Callable[[], dict[str, Any]], screen: Console) -> dict[str, Any]:
    """The job. A service that took nothing and names a time to come back, as one does whose broker is away, is asked
    again for up to PATIENCE_S; one that may have taken the job is not: there would be two."""
    from forebay.cli.connection import Refused
    from forebay.cli.screen import visible

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return submission()
        except Refused as error:
            pause_s = error.retry_after_s
            if pause_s is None or time.monotonic() + pause_s > deadline:
                raise
            screen.print(visible(f"{error.message}; trying again in {pause_s:g} s"))
        time.sleep(pause_s)


def _submit_body(service: Service, model: str, given: Input, parameters: Sequence[tuple[str, str]]) -> dict[str, Any]:
    from forebay.cli.connection import Refused

    try:
        return service.submit_body(model, given.body, _media_type(service, model, given), parameters)
    except Refused as error:
        if given.media_type == TEXT and _wants_json(error) and is_json_document(given.body):
            error.message += f"\n  to send it as JSON, add --input-json: {program()} submit {model} --input-json ..."
        raise


def _media_type(service: Service, model: str, given: Input) -> str:
    """What the input's name says (README.md, page.html), or plain text where only that is what the model takes."""
    if given.media_type == TEXT or not given.is_text():
        return given.media_type
    try:
        taken = service.model(model).get("media_types", [])
    except ForebayError:
        return given.media_type  # the submission itself will say what is wrong
    return TEXT if given.media_type not in taken and "text/plain" in taken else given.media_type


def _wants_json(error: Refused) -> bool:
    return error.problem.get("accepted") == ["application/json"]


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

    # The model is known from here: until the job is visible the service may tell no more than that it is queued.
    shown, told, model = job["status"], False, job["model"]
    if not screen.is_terminal:
        screen.print(f"{job['id']} {shown}")
    try:
        with screen.status(f"{job['id']} {shown}") as status:

            def on_change(job: dict[str, Any]) -> None:
                nonlocal shown, told
                if job["status"] == "queued" and not told:
                    told = True
                    _tell_if_unavailable(service, model, screen)
                if job["status"] == shown:
                    return
                shown = job["status"]
                status.update(f"{job['id']} {shown}")
                if not screen.is_terminal:
                    screen.print(f"{job['id']} {shown}")

            job = wait_until_final(service, job, on_change, time.sleep)
    except KeyboardInterrupt:
        screen.print(f"no longer waiting; the job goes on: {program()} jobs get {job['id']}")
        raise typer.Exit(130) from None
    screen.print(ending(job))
    return job


def _tell_if_unavailable(service: Service, model: str, screen: Console) -> None:
    """Why a job may wait for long. Not being able to say so is no reason to stop waiting."""
    from forebay.cli.screen import visible

    try:
        found = service.model(model)
    except ForebayError:
        return
    if found.get("status") == "unavailable":
        reason = found.get("reason") or "no reason is known"
        screen.print(visible(f"model {model} is unavailable: {reason}; the job waits until it is there"))


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
