"""What a setting carries besides its value, and the kinds of value there are."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct
from pydantic import Field, SecretStr

from forebay.core.ids import SECRET_MIN_BYTES

KIB = 1024
MIB = 1024 * KIB


class Meaning(Struct, frozen=True):
    """What a person must know of one setting.

    `text` says what it does, `reason` why the default is what it is, `expected` what a valid value looks like.
    `shown_default` stands for a default that differs by machine. `secret` values are never shown and have no option,
    which all users of a machine could read. `hidden` settings are for tests and stand on no page.
    """

    text: str
    reason: str
    expected: str
    shown_default: str = ""
    secret: bool = False
    hidden: bool = False


Port = Annotated[int, Field(ge=0, le=65535)]
Bytes = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=0, le=10**12)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=SECRET_MIN_BYTES)]
