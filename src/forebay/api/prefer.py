"""The `Prefer` header (RFC 7240): which of its preferences we honour, and how we say so."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

WAIT_MAX_S = 60
"""The longest wait that a caller can ask for: under the usual idle timeout of proxies."""

# preference = token [ BWS "=" BWS word ] *( OWS ";" [ OWS parameter ] ); word = token / quoted-string (section 2)
_WORD = r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\")"
_PREFERENCE = re.compile(rf"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*({_WORD})?)?((?:\s*;[^,;]*)*)\s*(?:,|$)")


class Preferences(Struct, frozen=True):
    """`wait_s` is None when no (valid) `wait` was sent; it is at most WAIT_MAX_S."""

    wait_s: int | None = None
    respond_async: bool = False

    def applied(self, *, waited: bool) -> str:
        """The value of `Preference-Applied`, "" for none. `waited`: the answer is final and not 202."""
        words = ["respond-async"] if self.respond_async and not waited else []
        if self.wait_s is not None:
            words.append(f"wait={self.wait_s}")
        return ", ".join(words)


NONE = Preferences()


def parse_prefer(headers: Iterable[str]) -> Preferences:
    """Read all `Prefer` headers of a request. Never raises.

    Names are case-insensitive, the first of a repeated preference counts, and what is unknown or makes no sense is
    ignored (section 2). A longer wait than we grant is granted in part; `Preference-Applied` says so.
    """
    found: dict[str, str] = {}
    text = ",".join(headers)
    at = 0
    while at < len(text):
        match = _PREFERENCE.match(text, at)
        if match is None:  # not a preference: go on behind the next comma
            at = text.find(",", at) + 1 or len(text)
            continue
        found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
        at = match.end()
    wait = found.get("wait", "")
    wait_s = min(int(wait), WAIT_MAX_S) if wait.isascii() and wait.isdigit() and len(wait) < 10 else None
    return Preferences(wait_s, "respond-async" in found)
