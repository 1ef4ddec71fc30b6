"""How many bytes of large bodies may be in this process at once."""

from __future__ import annotations

from starlette.types import Scope

from forebay.api.problems import Overloaded

LARGE_BODY_BYTES = 256 * 1024
"""Larger bodies are read one after the other on a thread of their own and count against the budget. Reading a smaller
one takes less than 10 ms; taking that to a thread would cost the usual submission more than it spares others."""

BODY_BUDGET_BYTES = 256 * 1024 * 1024
"""Eight bodies of the largest size, by default settings: so a burst of large ones takes a bounded part of the memory of
a small machine, and the rest come back a second later."""

_CLAIMED = "forebay.body_bytes"


class BodyBudget:
    """Claims stand in the ASGI scope of their request, so that whoever is done with a body first may release it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._claimed_bytes = 0

    def claim(self, scope: Scope, body_bytes: int) -> None:
        """So many in all for this request; small ones are free. Raises Overloaded when there is no room for them."""
        if body_bytes <= LARGE_BODY_BYTES:
            return
        more = body_bytes - scope.get(_CLAIMED, 0)
        if more <= 0:
            return
        if self._claimed_bytes + more > self._limit_bytes:
            raise Overloaded("too many large bodies are being read at this moment; send this one again soon")
        self._claimed_bytes += more
        scope[_CLAIMED] = body_bytes

    def release(self, scope: Scope) -> None:
        """The body is gone. Repeating it does nothing."""
        self._claimed_bytes -= scope.pop(_CLAIMED, 0)
