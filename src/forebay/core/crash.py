"""Named crash points at every I/O boundary, for tests that kill a process at an exact place.

`reach(name)` does nothing unless a test has armed the process (setting `crash_at`); then the armed callback decides.
"""

from __future__ import annotations

from collections.abc import Callable

_armed: Callable[[str], None] | None = None


def arm(callback: Callable[[str], None] | None) -> None:
    """Call `callback(name)` at every point from now on; None disarms. Called by `assembly` only."""
    global _armed
    _armed = callback


def reach(name: str) -> None:
    if _armed is not None:
        _armed(name)
