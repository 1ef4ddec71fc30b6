"""Any str as a `text` of PostgreSQL, and back.

`text` refuses U+0000 (postgresql.org/docs/current/datatype-character.html) and everything that is no UTF-8, which are
lone surrogates. Names come from Kafka headers and from callers, so either may appear, and nothing may be lost or mixed
up by it: those characters, and the backslash itself, stand as a backslash and four hexadecimal digits.
"""

from __future__ import annotations

import re

_REFUSED = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\([0-9a-f]{4})")


def to_text(value: str) -> str:
    """Different for different values. The value itself unless it holds one of those characters, as hardly any does."""
    if "\\" not in value and value.isprintable():
        return value
    return _REFUSED.sub(lambda found: f"\\{ord(found[0]):04x}", value)


def from_text(text: str) -> str:
    """The inverse."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
