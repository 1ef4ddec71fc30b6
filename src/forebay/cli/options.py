"""Options that several commands share; above all every setting, made from the tree itself so that none is forgotten.

A command of class `SettingsCommand` takes them all; `settings_of(context)` gives the settings that hold. The options
are made only when the command is parsed or its own help is shown: reading the tree imports pydantic.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

if TYPE_CHECKING:
    from forebay.settings import Settings

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the service. Default FOREBAY_URL, else the service that runs on data_dir (its address.json), "
        "else host and port of the settings.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]

OVERRIDES = "forebay.overrides"


class SettingsCommand(TyperCommand):
    """A command that takes every setting as an option, besides its own parameters."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *_setting_options()]


def settings_of(context: typer.Context) -> Settings:
    """The settings that hold for this command. Raises Misconfigured with all mistakes."""
    return current_settings(context.meta.get(OVERRIDES, {}))


def current_settings(overrides: Mapping[str, object]) -> Settings:
    """The settings of this process's environment and folder."""
    from forebay.settings import load_settings

    return load_settings(overrides, os.environ, Path.cwd())


def _keep(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    if value is not None and parameter.name is not None:
        context.meta.setdefault(OVERRIDES, {})[parameter.name] = value
    return value


@cache
def _setting_options() -> list[Any]:
    """Typer makes options from a signature, so one is made up. Values stay text: `load_settings` judges them."""
    from forebay.settings import Settings, meaning_of, option_name

    parameters = [
        _parameter("config", "--config", str, "TOML file with settings. Default ./forebay.toml if there is one.")
    ]
    for name, field in Settings.model_fields.items():
        meaning = meaning_of(name)
        if meaning.secret:
            continue
        option = option_name(name)
        default = meaning.shown_default or _shown(field.get_default())
        text = f"{meaning.text} Default {default}."
        if field.annotation is bool:
            parameters.append(_parameter(name, f"{option}/--no-{option[2:]}", bool, text, hidden=meaning.hidden))
        else:
            parameters.append(_parameter(name, option, str, text, hidden=meaning.hidden))

    def settings(**given: Any) -> None: ...

    settings.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    settings.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    scratch = typer.Typer(add_completion=False)
    scratch.command()(settings)
    return list(get_command(scratch).params)


def _parameter(name: str, option: str, kind: type, text: str, *, hidden: bool = False) -> inspect.Parameter:
    declared = typer.Option(
        option,
        help=text,
        hidden=hidden,
        expose_value=False,
        callback=_keep,
        show_default=False,
        metavar=None if kind is bool else "VALUE",
    )
    annotation = Annotated[bool | None, declared] if kind is bool else Annotated[str | None, declared]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in ((), "") else str(default)
