"""`forebay jobs`: what became of what was submitted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forebay.cli.options import AsJson, Url
from forebay.cli.submit import took_s

jobs = typer.Typer(name="jobs", help="List jobs, or look at one.", no_args_is_help=True, rich_markup_mode=None)


@jobs.command()
def ls(
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only jobs in this state: queued running succeeded failed canceled expired.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, the newest first."""
    from forebay.cli.screen import console, print_json, styled, table
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.jobs(model=model, status=status, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no jobs" if model is None and status is None else "no such jobs")
        return
    rows = [
        (
            job["id"],
            job.get("model", ""),
            styled(job["status"]),
            str(job.get("attempts", 0)),
            _to_the_second(job["created_at"]),
            _took(job),
        )
        for job in found
    ]
    console().print(table(("id", "model", "status", "attempts", "created", "took"), rows))


@jobs.command()
def get(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job's id.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show one job with its output."""
    from forebay.cli.screen import console, pairs, print_json, told
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        job = service.job(job_id)
    if as_json:
        print_json(job)
        return
    console().print(pairs((name, told(value)) for name, value in job.items() if name != "urls"))


def _took(job: dict[str, Any]) -> str:
    return f"{took_s(job):.3f} s" if "finished_at" in job else ""


def _to_the_second(text: str) -> str:
    return text.partition(".")[0] + "Z" if "." in text else text
