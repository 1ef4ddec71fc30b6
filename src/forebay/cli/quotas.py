"""`forebay quotas`: how many jobs a tenant may have accepted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from forebay.cli.options import AsJson, SettingsCommand, settings_of
from forebay.core.api_key import GOOD_NAME
from forebay.core.errors import InvalidRequest, NotFound
from forebay.core.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebay.ports.quotas import Quotas

T = TypeVar("T")

quotas = typer.Typer(
    name="quotas",
    help="Set, list and clear quotas of tenants. Who has none has what quota_jobs_... in the settings says.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="As `keys ls` shows it.", show_default=False)]


def _limit(option: str, what: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(option, min=0, max=10**12, metavar="JOBS", help=what)
    return found


@quotas.command(name="set", cls=SettingsCommand)
def set_quota(
    context: typer.Context,
    tenant: Tenant,
    per_minute: Annotated[int | None, _limit("--per-minute", "Accepted in any minute.")] = None,
    per_day: Annotated[int | None, _limit("--per-day", "Accepted from midnight to midnight UTC.")] = None,
    outstanding: Annotated[int | None, _limit("--outstanding", "Accepted and not final yet.")] = None,
) -> None:
    """Set limits of a tenant, 0 to let none in; what is left out stays. Services that run know them within 5 s."""
    given = Quota(jobs_per_minute=per_minute, jobs_per_day=per_day, jobs_outstanding=outstanding)
    if not given.limits:
        raise InvalidRequest("say at least one of --per-minute, --per-day, --outstanding")
    if not GOOD_NAME.fullmatch(tenant):
        raise InvalidRequest(f"{tenant!r} is no tenant: 1 to 64 letters, digits, '.', '_' and '-'")

    async def put(known: Quotas) -> Quota:
        quota = given.or_else(await known.get(tenant))
        await known.put(tenant, quota)
        return quota

    limits = _with_quotas(context, put).limits
    typer.echo(f"{tenant}: {', '.join(f'{name} {limit}' for name, limit in limits.items())}")


@quotas.command(cls=SettingsCommand)
def clear(context: typer.Context, tenant: Tenant) -> None:
    """Take a tenant's own limits away."""

    async def remove(known: Quotas) -> None:
        if not (await known.get(tenant)).limits:
            raise NotFound(f"{tenant[:64]!r} has no quota of its own; `quotas ls` lists those who have")
        await known.put(tenant, Quota())

    _with_quotas(context, remove)
    typer.echo(f"{tenant}: no limits of its own")


@quotas.command(cls=SettingsCommand)
def ls(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tenants that have a quota of their own."""
    from forebay.cli.screen import console, print_json, table

    async def read(known: Quotas) -> dict[str, Quota]:
        return dict(await known.all())

    found = _with_quotas(context, read)
    if as_json:
        print_json([{"tenant": tenant, **quota.limits} for tenant, quota in found.items()])
        return
    if not found:
        console(err=True).print("no tenant has a quota of its own")
        return
    names = list(Quota.__struct_fields__)
    rows = [[tenant, *(str(quota.limits.get(name, "")) for name in names)] for tenant, quota in found.items()]
    console().print(table(["tenant", *(name.replace("_", " ") for name in names)], [list(row) for row in rows]))


def _with_quotas(context: typer.Context, do: Callable[[Quotas], Awaitable[T]]) -> T:
    settings = settings_of(context)

    from forebay.assembly.backends import open_owned

    async def opened() -> T:
        async with open_owned(settings) as owned:
            return await do(owned.quotas)

    return asyncio.run(opened())
