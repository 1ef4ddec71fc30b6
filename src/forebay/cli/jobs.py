"""`forebay jobs`: what became of what was submitted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.cli.options import AsJson, Url
from forebay.cli.submit import took_s
from forebay.core.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from forebay.cli.service import Service

WHOLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9a-f]{16}")
PREFIX_MIN_CHARS = 8
NEWEST = 1000
"""Among so many an id may be given by its beginning."""

COLUMNS = ("id", "model", "status", "attempts", "created", "took")
NEEDED = ("id", "status", "model", "created", "took", "attempts")
"""In this order columns are given up where a terminal is too narrow, the last first, and the id never."""

JobId = Annotated[
    str, typer.Argument(metavar="ID", help="A job's id, or the beginning of a newer one's.", show_default=False)
]

jobs = typer.Typer(
    name="jobs",
    help="List jobs, look at one, cancel or delete one, ask why one waits.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@jobs.command()
def ls(
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only jobs in this state: queued running succeeded failed canceled expired.")
    ] = None,
    created_after: Annotated[
        str | None, typer.Option(help="Only jobs accepted later than this, such as 2026-11-28T18:00:00Z.")
    ] = None,
    created_before: Annotated[str | None, typer.Option(help="Only jobs accepted earlier than this.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only jobs with this in their metadata; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, the newest first. A narrow terminal shows fewer columns, and ids always whole."""
    from forebay.cli.screen import columns_that_fit, console, print_json, styled, table, terminal_width
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.jobs(
            limit=limit,
            model=model,
            status=status,
            created_after=created_after,
            created_before=created_before,
            **_metadata_filters(metadata or []),
        )
    if as_json:
        print_json(found)
        return
    if not found:
        filtered = any((model, status, created_after, created_before, metadata))
        console(err=True).print("no such jobs" if filtered else "no jobs")
        return
    rows = [
        {
            "id": job["id"],
            "model": job.get("model", ""),
            "status": job["status"],
            "attempts": str(job.get("attempts", 0)),
            "created": to_the_second(job["created_at"]),
            "took": _took(job),
        }
        for job in found
    ]
    fitting = columns_that_fit(NEEDED, rows, terminal_width())
    columns = [column for column in COLUMNS if column in fitting]
    lines = [[styled(row[name]) if name == "status" else row[name] for name in columns] for row in rows]
    console().print(table(columns, lines))


def _metadata_filters(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise InvalidRequest(f"--metadata {pair}: write it as NAME=VALUE")
    return {f"metadata.{name}": value for name, _, value in (pair.partition("=") for pair in pairs)}


@jobs.command()
def get(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show one job with its output."""
    from forebay.cli.screen import console, pairs, print_json, told
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        job = service.job(whole_id(service, job_id))
    if as_json:
        print_json(job)
        return
    console().print(pairs((name, told(value)) for name, value in job.items() if name != "urls"))


@jobs.command()
def cancel(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Cancel one job; tells which state won, since it may have ended before."""
    from forebay.cli.screen import console, print_json, styled
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        job = service.cancel(whole_id(service, job_id))
    if as_json:
        print_json(job)
        return
    console().print(job["id"], styled(job["status"]))
    if job["status"] in ("queued", "running"):
        console(err=True).print("not known yet whether it is canceled: look again soon")


@jobs.command()
def delete(job_id: JobId, url: Url = None) -> None:
    """Delete one job that has ended, with its input and its output. Nobody can bring it back."""
    from forebay.cli.screen import console
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        job_id = whole_id(service, job_id)
        gone = service.delete(job_id)
    console().print(job_id, "deleted" if gone else "will be deleted within moments")


@jobs.command()
def explain(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Tell why one job waits, and when it may start and finish."""
    from forebay.cli.screen import console, pairs, print_json, told
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.explain(whole_id(service, job_id))
    if as_json:
        print_json(found)
        return
    shown: list[tuple[str, str]] = [
        (name, told(found[name])) for name in ("id", "model", "lane", "status", "retry_at") if name in found
    ]
    if "position" in found:
        about = "" if found["position_exact"] else "about "
        shown.append(("position", f"{about}{found['position']} of {found['waiting']}"))
    if "rate_per_s" in found:
        shown.append(("rate", f"{found['rate_per_s']:.2f} jobs/s"))
    for name, what in (("expected_start", "starts"), ("expected_finish", "finishes")):
        if name in found:
            band = found[name]
            shown.append((what, f"in {band['p50_s']:.1f} s (half of such jobs), {band['p90_s']:.1f} s (nine in ten)"))
    shown += [(cause["code"], cause["message"]) for cause in found["causes"]]
    console().print(pairs(shown))


@jobs.command()
def retry(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Do a job again that failed, was canceled or expired: a new job, which may be there already."""
    from forebay.cli.screen import console, print_json, styled
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        job = service.retry(whole_id(service, job_id))
    if as_json:
        print_json(job)
        return
    console().print(job["id"], styled(job["status"]))


def whole_id(service: Service, given: str) -> str:
    """The id that begins so, among the newest jobs. Raises NotFound if none does, InvalidRequest if several do."""
    given = given.strip().lower()
    if WHOLE_ID.fullmatch(given):
        return given
    if len(given) < PREFIX_MIN_CHARS:
        raise InvalidRequest(
            f"{given!r} is too short: give a job's id, or at least its first {PREFIX_MIN_CHARS} letters"
        )
    found: list[str] = [job["id"] for job in service.jobs(limit=NEWEST) if job["id"].startswith(given)]
    if not found:
        raise NotFound(f"none of the newest {NEWEST} jobs has an id that begins with {given!r}; give the whole id")
    if len(found) > 1:
        shown = "".join(f"\n  {job_id}" for job_id in found[:5]) + ("\n  ..." if len(found) > 5 else "")
        raise InvalidRequest(f"{len(found)} jobs have an id that begins with {given!r}; give more of it:{shown}")
    return found[0]


def _took(job: dict[str, Any]) -> str:
    return f"{took_s(job):.3f} s" if "finished_at" in job else ""


def to_the_second(text: str) -> str:
    return text.partition(".")[0] + "Z" if "." in text else text
