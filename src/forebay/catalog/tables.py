"""Tables of a TOML file as structs, with every mistake found rather than the first."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, ValidationError

from forebay.catalog.names import did_you_mean

StructT = TypeVar("StructT", bound=Struct)


def read_table(table: object, kind: type[StructT], mistakes: list[str], prefix: str = "") -> StructT:
    """`table` as a `kind`; a field whose type is itself a struct is a table within it.

    Adds a line to `mistakes` for each key that is unknown or has a wrong value, and leaves that key at its default.
    A line names the key and says what to write.
    """
    if not isinstance(table, Mapping):
        mistakes.append(f"{prefix}: found {_shown(table)}; write a table, [{prefix}] and its keys below it")
        return kind()
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if key not in hints:
            where = f"[{prefix}]" if prefix else "the file's top level"
            hint = did_you_mean(key, hints)
            mistakes.append(f"{name}: {where} has no such key{hint}; it takes {', '.join(hints) or 'none'}")
        elif isinstance(hints[key], type) and issubclass(hints[key], Struct):
            values[key] = read_table(value, hints[key], mistakes, name)
        else:
            try:
                values[key] = msgspec.convert(value, hints[key])
            except ValidationError:
                wanted = expected(hints[key]) + _meant(value, hints[key])
                mistakes.append(f"{name}: found {_shown(value)}; write {wanted}")
    return kind(**values)


def expected(hint: Any) -> str:
    """The description that the field's type carries."""
    for part in _parts(hint):
        if isinstance(part, Meta) and part.description:
            return part.description
    return str(hint)


def _meant(value: object, hint: Any) -> str:
    """A guess at a mistyped word, where only some words are allowed."""
    words = [part for part in _parts(hint) if isinstance(part, str)]
    return did_you_mean(value, words) if isinstance(value, str) else ""


def _parts(hint: Any) -> Iterator[Any]:
    """The annotations and alternatives that a type hint is made of, outermost first."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
        yield from _parts(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for alternative in get_args(hint):
            yield from _parts(alternative)
    else:
        yield from get_args(hint)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
