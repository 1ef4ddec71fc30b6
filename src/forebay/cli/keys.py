"""`forebay keys`: who may call the API."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from forebay.cli.durations import seconds_of
from forebay.cli.options import AsJson, SettingsCommand, settings_of
from forebay.core.api_key import ApiKey, Scope, new_key
from forebay.core.errors import InvalidRequest, NotFound
from forebay.core.times import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebay.ports.api_keys import ApiKeys

T = TypeVar("T")

keys = typer.Typer(
    name="keys",
    help="Make, list and revoke API keys. As long as there has never been one, nobody is asked for a key.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `keys ls` shows it.", show_default=False)]
Expires = Annotated[
    str | None,
    typer.Option("--expires", help="After so long, such as 90d, 12h or 30m; never if left out.", show_default=False),
]


@keys.command(cls=SettingsCommand)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose jobs it is about; a tenant sees its own only.")] = "default",
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it may do; repeatable. submit, read and cancel if left out.", show_default=False),
    ] = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once. It works at once, next to a service that runs too."""
    scopes = scope or [Scope.SUBMIT, Scope.READ, Scope.CANCEL]

    async def make(known: ApiKeys) -> tuple[ApiKey, str]:
        return await _make(known, tenant, name, scopes, expires)

    _show(*_with_keys(context, make), as_json=as_json)


@keys.command(cls=SettingsCommand)
def rotate(
    context: typer.Context,
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on to work.")] = "24h",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a key that may do what another may, and lives as long; the other ends after a while."""
    seconds = seconds_of(overlap)

    async def replace(known: ApiKeys) -> tuple[ApiKey, str]:
        from msgspec.structs import replace as with_changes

        old, now = await _found(known, key_id), time.time()
        if (state := old.state(now)) != "active":
            raise InvalidRequest(f"the key {old.id} is {state}; make a new one with `keys create`")
        life_s = None if old.expires_at is None else old.expires_at - old.created_at
        made = await _make(known, old.tenant, old.name, sorted(old.scopes), expires, life_s)
        if old.expires_at is None or old.expires_at > now + seconds:
            await known.put(with_changes(old, expires_at=now + seconds))
        return made

    _show(*_with_keys(context, replace), as_json=as_json)


@keys.command(cls=SettingsCommand)
def revoke(
    context: typer.Context,
    key_id: KeyId,
) -> None:
    """End a key; services that run know it within 5 s. The service does not become open with its last key."""

    async def end(known: ApiKeys) -> None:
        from msgspec.structs import replace

        key = await _found(known, key_id)
        if key.revoked_at is None:
            await known.put(replace(key, revoked_at=time.time()))

    _with_keys(context, end)
    typer.echo(f"{key_id} is revoked")


@keys.command(cls=SettingsCommand)
def ls(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys, the oldest first; never what they are."""
    from rich.text import Text

    from forebay.cli.screen import console, print_json, styled, table

    async def read(known: ApiKeys) -> list[ApiKey]:
        return list(await known.all())

    found = _with_keys(context, read)
    now = time.time()
    if as_json:
        print_json([_document(key, now) for key in found])
        return
    if not found:
        console(err=True).print("no keys: nobody is asked for one")
        return
    rows: list[list[str | Text]] = [
        [
            key.id,
            key.tenant,
            key.name,
            " ".join(sorted(key.scopes)),
            _time(key.created_at),
            _time(key.expires_at),
            styled(key.state(now)),
        ]
        for key in found
    ]
    console().print(table(["id", "tenant", "name", "scopes", "created", "expires", "state"], rows))


def _with_keys(context: typer.Context, do: Callable[[ApiKeys], Awaitable[T]]) -> T:
    settings = settings_of(context)

    from forebay.assembly.backends import open_owned

    async def opened() -> T:
        async with open_owned(settings) as owned:
            return await do(owned.keys)

    return asyncio.run(opened())


async def _make(
    known: ApiKeys,
    tenant: str,
    name: str,
    scopes: list[Scope],
    expires: str | None,
    life_s: float | None = None,
) -> tuple[ApiKey, str]:
    """`life_s`: of a key for which nobody said when it expires."""
    import secrets

    now = time.time()
    life_s = life_s if expires is None else seconds_of(expires)
    expires_at = None if life_s is None else now + life_s
    made = new_key(
        tenant=tenant, name=name, scopes=scopes, now=now, random_bytes=secrets.token_bytes, expires_at=expires_at
    )
    await known.put(made[0])
    return made


async def _found(known: ApiKeys, key_id: str) -> ApiKey:
    key = await known.get(key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id[:40]!r}; `keys ls` lists them")
    return key


def _show(key: ApiKey, token: str, *, as_json: bool) -> None:
    """The token alone on standard output, so that it can be put into a file."""
    from forebay.cli.screen import print_json

    if as_json:
        print_json({**_document(key, key.created_at), "key": token})
        return
    until = f", until {_time(key.expires_at)}" if key.expires_at is not None else ""
    typer.echo(
        f"key {key.id} of tenant {key.tenant} may {', '.join(sorted(key.scopes))}{until}; it is not shown again:",
        err=True,
    )
    typer.echo(token)


def _document(key: ApiKey, now: float) -> dict[str, object]:
    found: dict[str, object] = {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "state": key.state(now),
        "created_at": to_rfc3339(key.created_at),
    }
    for member, at in (("expires_at", key.expires_at), ("revoked_at", key.revoked_at)):
        if at is not None:
            found[member] = to_rfc3339(at)
    return found


def _time(at: float | None) -> str:
    return "" if at is None else to_rfc3339(at).partition(".")[0] + "Z"
