"""`forebay queues`: what waits, and how fast it is worked off."""

from __future__ import annotations

from forebay.cli.options import AsJson, Url

COLUMNS = ("model", "lane", "waiting", "running", "oldest", "workers", "rate")


def queues(as_json: AsJson = False, url: Url = None) -> None:
    """Show how many jobs wait and run in each lane of each model, and how many end in a second."""
    from forebay.cli.screen import console, print_json, table
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.queues()
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no models, so no queues")
        return
    rows = [
        (
            queue["model"],
            queue["lane"],
            str(queue["waiting"]),
            str(queue["running"]),
            f"{queue['oldest_s']:.1f} s" if "oldest_s" in queue else "",
            str(queue["workers"]),
            f"{queue['rate_per_s']:.2f}/s" if "rate_per_s" in queue else "",
        )
        for queue in found
    ]
    console().print(table(COLUMNS, rows))
