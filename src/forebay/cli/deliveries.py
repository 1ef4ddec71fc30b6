"""`forebay webhooks deliveries` and `redeliver`: what was sent, what became of it, and sending it again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.cli.jobs import to_the_second, whole_id
from forebay.cli.options import AsJson, Url
from forebay.core.delivery import DeliveryStatus
from forebay.core.errors import ForebayError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay.cli.service import Service

COLUMNS = ("type", "job", "receiver", "status", "tries", "next try, or why none")
COLUMNS_OF_JOB = ("id", "type", "receiver", "status", "tries", "next try, or why none")
NEEDED = ("type", "status", "id", "job", "next try, or why none", "receiver", "tries")
"""As of jobs: the last is given up first."""

JobId = Annotated[
    str | None,
    typer.Argument(metavar="[JOB]", help="Its id, or the beginning of a newer one's.", show_default=False),
]
DeliveryId = Annotated[
    str | None, typer.Argument(metavar="[DELIVERY]", help="As `webhooks deliveries JOB` shows it.", show_default=False)
]
Status = Annotated[DeliveryStatus | None, typer.Option(help="Only in this state.", show_default=False)]
Endpoint = Annotated[str | None, typer.Option(metavar="ID", help="Only to this endpoint.", show_default=False)]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Only of what was then or later, such as 2026-11-28T18:00:00Z.", show_default=False
    ),
]


def deliveries(
    job_id: JobId = None,
    status: Status = None,
    endpoint: Endpoint = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List deliveries: of one job with their ids, in the order of what they tell, or of all, the oldest first."""
    from forebay.cli.screen import columns_that_fit, console, print_json, styled, table, terminal_width
    from forebay.cli.service import Service, service_url

    filters: dict[str, str | None] = {"status": status, "endpoint": endpoint, "since": since}
    if job_id and any(filters.values()):
        raise InvalidRequest("filters are for the deliveries of all jobs: leave out the job or the filters")
    with Service(service_url(url)) as service:
        if job_id:
            found = service.deliveries_of(whole_id(service, job_id))[:limit]
        else:
            found = service.deliveries(limit=limit, **filters)
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no such deliveries" if any(filters.values()) else "no deliveries")
        return
    rows = [_row(one) for one in found]
    shown = COLUMNS_OF_JOB if job_id else COLUMNS
    fitting = columns_that_fit([name for name in NEEDED if name in shown], rows, terminal_width())
    columns = [column for column in shown if column in fitting]
    lines = [[styled(row[name]) if name == "status" else row[name] for name in columns] for row in rows]
    console().print(table(columns, lines))


def _row(one: dict[str, Any]) -> dict[str, str]:
    return {
        "id": one["id"],
        "type": one["type"],
        "job": one["job_id"] if "job_id" in one else one["batch_id"],
        "receiver": one["endpoint"] if "endpoint" in one else one["url"],
        "status": one["status"],
        "tries": str(one["tries_total"]),
        "next try, or why none": to_the_second(one["next_try_at"]) if "next_try_at" in one else _reason(one),
    }


def _reason(one: dict[str, Any]) -> str:
    """Why it is parked, and what the receiver said last; "" of one that is not."""
    last = one["tries"][-1].get("message", "") if one["tries"] else ""
    reason = one.get("reason", "")
    return f"{reason}: {last}" if reason and last else reason


def redeliver(
    job_id: JobId = None,
    delivery_id: DeliveryId = None,
    since: Since = None,
    status: Annotated[
        DeliveryStatus | None, typer.Option(help="Only in this state; parked if left out.", show_default=False)
    ] = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Send again, with the same id and bytes: one delivery of a job, or all since then that are parked."""
    from forebay.cli.screen import console, print_json
    from forebay.cli.service import Service, service_url

    filters: dict[str, str | None] = {"since": since, "status": status, "endpoint": endpoint}
    one = delivery_id is not None and not any(filters.values())
    many = job_id is None and since is not None
    if not (one or many):
        raise InvalidRequest(
            "say which: a job and one of its deliveries, or --since TIME, with other filters or without"
        )
    with Service(service_url(url)) as service:
        if job_id is not None and delivery_id is not None:
            asked = service.redeliver(whole_id(service, job_id), delivery_id)
        else:
            asked = {"asked": _redeliver_all(service, filters)}
    if as_json:
        print_json(asked)
        return
    console().print(f"{delivery_id} is sent again" if one else f"{asked['asked']} are sent again")


def _redeliver_all(service: Service, filters: dict[str, str | None]) -> int:
    """How many."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    screen = Console(stderr=True, highlight=False)
    asked = 0
    columns = (SpinnerColumn(), TextColumn("{task.completed} are sent again"))
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as shown:
        task = shown.add_task("", total=None)
        try:
            for count in _redelivered(service, filters, time.sleep):
                asked += count
                shown.update(task, completed=asked)
        except ForebayError as error:
            error.message += f"\n{_so_far(asked)}"
            raise
        except KeyboardInterrupt:
            screen.print(_so_far(asked))
            raise typer.Exit(130) from None
    return asked


def _so_far(asked: int) -> str:
    return f"{asked} are sent again, the oldest; the others are as they were"


def _redelivered(service: Service, filters: dict[str, str | None], pause: Callable[[float], None]) -> Iterator[int]:
    """How many with each request. What the service answers 429 or 503 to is asked again ten times."""
    from forebay.cli.connection import Refused

    cursor, failures = None, 0
    while True:
        try:
            page = service.redeliver_some(**filters, cursor=cursor)
        except Refused as error:  # asked again, unless it is for good
            failures += 1
            if error.retry_after_s is None or failures > 10:
                raise
            pause(error.retry_after_s)
            continue
        failures = 0
        yield page["asked"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return
