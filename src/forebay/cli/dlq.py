"""`forebay dlq`: dead letters, the jobs that have failed and that nobody has done again."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from forebay.cli.jobs import JobId, to_the_second, whole_id
from forebay.cli.options import AsJson, Url
from forebay.cli.program import program
from forebay.core.errors import ForebayError, InvalidRequest, Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay.cli.service import Service

COUNT_MOST = 10_000
"""Dead letters that are counted before a redrive, so that its bar has an end; with more it has none."""

COUNTS = ("redriven", "already", "gone", "refused")
LEFT = {
    "already": "had been done again meanwhile",
    "gone": "are left: their input is no longer kept, submit them anew",
    "refused": "are left: their model is not there; put it back into the models folder",
}

Model = Annotated[str | None, typer.Option(help="Only of this model.")]
Code = Annotated[str | None, typer.Option(help="Only with this code of the error, such as worker_lost.")]
CreatedAfter = Annotated[
    str | None, typer.Option(help="Only of jobs accepted later than this, such as 2026-11-28T18:00:00Z.")
]
CreatedBefore = Annotated[str | None, typer.Option(help="Only of jobs accepted earlier than this.")]
JobIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Their ids, or their beginnings.", show_default=False)
]

dlq = typer.Typer(
    name="dlq",
    help="List dead letters (jobs that failed), look into one, do them again, export them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dlq.command()
def ls(
    model: Model = None,
    code: Code = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List dead letters, the newest first."""
    from forebay.cli.screen import columns_that_fit, console, print_json, table, terminal_width
    from forebay.cli.service import Service, service_url

    filters = _filters(model, code, created_after, created_before)
    with Service(service_url(url)) as service:
        found = service.dead_letters(limit=limit, **filters)
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no such dead letters" if any(filters.values()) else "no dead letters")
        return
    rows = [
        {
            "id": job["id"],
            "model": job.get("model", ""),
            "code": job["error"]["code"],
            "attempts": str(job["attempts"]),
            "failed": to_the_second(job["finished_at"]),
            "error": job["error"]["message"],
        }
        for job in found
    ]
    fitting = columns_that_fit(("id", "code", "model", "failed", "attempts", "error"), rows, terminal_width())
    columns = [column for column in rows[0] if column in fitting]
    console().print(table(columns, [[row[name] for name in columns] for row in rows]))


@dlq.command()
def show(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Show one: its error, who ran each attempt, when and how it ended, and the headers of its request."""
    from forebay.cli.screen import console, pairs, print_json, table, told
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.dead_letter(whole_id(service, job_id))
    if as_json:
        print_json(found)
        return
    screen = console()
    apart = ("urls", "history", "headers", "retried_by")
    screen.print(pairs((name, told(value)) for name, value in found.items() if name not in apart))
    for again in found.get("retried_by", ()):
        screen.print(f"done again as {again}")
    screen.print()
    lines = [
        (
            str(one["attempt"]),
            one.get("worker", ""),
            one.get("started_at", ""),
            one.get("finished_at", ""),
            f"{one['error']['code']}: {one['error']['message']}" if "error" in one else "nobody said how it ended",
        )
        for one in found["history"]
    ]
    screen.print(table(("attempt", "worker", "started", "finished", "error"), lines))
    screen.print()
    headers = found.get("headers", {"": "the log has let go of the request: this job cannot be done again"})
    screen.print(pairs(headers.items()))


@dlq.command()
def redrive(
    ids: JobIds = None,
    model: Model = None,
    code: Code = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    rate: Annotated[int, typer.Option(min=1, max=1000, help="Jobs in a second.")] = 10,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Do dead letters again, each once however often this is run: those with these ids, or all that fit.

    What fails anew is a new dead letter.
    """
    from forebay.cli.screen import console, print_json, styled
    from forebay.cli.service import Service, service_url

    filters = _filters(model, code, created_after, created_before)
    filtered = everything or any(filters.values())
    if bool(ids) == filtered:
        raise InvalidRequest("say which: either ids, or a filter such as --code worker_lost, or --all")
    with Service(service_url(url)) as service:
        if ids:
            jobs = []
            for old in (whole_id(service, one) for one in ids):
                jobs.append(job := service.redrive(old))
                if not as_json:
                    console().print(job["id"], styled(job["status"]), f"does {old} again")
            if as_json:
                print_json(jobs)
            return
        counts = _redrive_all(service, filters, rate, limit)
    if as_json:
        print_json(counts)
        return
    console().print(f"{counts['redriven']} redriven")
    for name, words in LEFT.items():
        if counts[name]:
            console(err=True).print(f"{counts[name]} {words}")


def _redrive_all(service: Service, filters: dict[str, str | None], rate: int, limit: int | None) -> dict[str, int]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("redriving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True, highlight=False)
    total = None
    if screen.is_terminal:
        most = min(limit or COUNT_MOST, COUNT_MOST)
        counted = len(service.dead_letters(limit=most, **filters))
        total = counted if counted < COUNT_MOST else limit
    counts = dict.fromkeys(COUNTS, 0)
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("redriving", total=total)
        try:
            _redrive(service, filters, rate, limit, counts, lambda done: bar.update(task, completed=done), time.sleep)
        except ForebayError as error:
            error.message += f"\n{_so_far(counts)}"
            raise
        except KeyboardInterrupt:
            screen.print(_so_far(counts))
            raise typer.Exit(130) from None
    return counts


def _so_far(counts: dict[str, int]) -> str:
    return f"{counts['redriven']} were redriven; run it again for the others: none is done twice"


def _redrive(
    service: Service,
    filters: dict[str, str | None],
    rate: int,
    limit: int | None,
    counts: dict[str, int],
    tell: Callable[[int], None],
    pause: Callable[[float], None],
) -> None:
    """From page to page, each of a second's work. The service keeps the rate within a page, this one between them; what
    it answers 429 or 503 to is asked again ten times."""
    from forebay.cli.connection import Refused

    began, cursor, failures = time.monotonic(), None, 0
    while True:
        done = sum(counts.values())
        pause(max(0.0, began + done / rate - time.monotonic()))
        left = rate if limit is None else min(rate, limit - done)
        try:
            page = service.redrive_some(**filters, rate=rate, limit=left, cursor=cursor)
        except Refused as error:
            failures += 1
            if error.retry_after_s is None or failures > 10:
                raise
            pause(error.retry_after_s)
            continue
        failures = 0
        for name in COUNTS:
            counts[name] += page[name]
        tell(sum(counts.values()))
        cursor = page.get("next_cursor")
        if cursor is None or (limit is not None and sum(counts.values()) >= limit):
            return


@dlq.command()
def export(
    model: Model = None,
    code: Code = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file that is not there yet; else standard output.")
    ] = None,
    url: Url = None,
) -> None:
    """Write dead letters with all that is known of them, their inputs too, as JSON lines."""
    from forebay.cli.screen import console
    from forebay.cli.service import Service, service_url

    count = 0
    filters: dict[str, Any] = _filters(model, code, created_after, created_before)
    with Service(service_url(url)) as service, _to(output) as lines:
        try:
            for line in service.export(**filters, limit=limit):
                lines.write(line + "\n")
                count += 1
        except Unavailable as error:
            error.message += f"\n{count} were written, and there are more: run {program()} dlq export again"
            raise
    console(err=True).print(f"{count} dead letters exported")


@contextmanager
def _to(output: Path | None) -> Iterator[TextIO]:
    """Under its own name once it is whole, until then as FILE.part."""
    if output is None:
        yield sys.stdout
        return
    if output.exists():
        raise Misconfigured(f"{output} is there already; name another file with --output")
    part = output.with_name(f"{output.name}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            yield file
        part.rename(output)
    except OSError as error:
        raise Misconfigured(f"{output} cannot be written: {error.strerror}; name another file with --output") from error
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def _filters(
    model: str | None, code: str | None, created_after: str | None, created_before: str | None
) -> dict[str, str | None]:
    return {"model": model, "code": code, "created_after": created_after, "created_before": created_before}
