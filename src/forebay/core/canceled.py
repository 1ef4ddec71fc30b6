"""Which jobs were canceled, as far as this process has heard. Pure: what it does for workers is in `worker/`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

MOST = 100_000
"""Of these the newest are known: some 20 MB. A job that is forgotten runs in vain if it still waits, and no more."""

Listener = Callable[[str, str], None]
"""Told the tenant and the id of a job; returns at once."""


class CanceledJobs:
    """Used on one thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[tuple[str, str], None] = {}  # the oldest first
        self._listeners: set[Listener] = set()

    def __contains__(self, job: tuple[str, str]) -> bool:
        return job in self._known

    def add(self, tenant: str, job_id: str) -> None:
        """Tells listeners, once for each job that is known."""
        if (tenant, job_id) in self._known:
            return
        self._known[tenant, job_id] = None
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        for listener in list(self._listeners):
            listener(tenant, job_id)

    @contextlib.contextmanager
    def told(self, listener: Listener) -> Iterator[None]:
        """`listener` hears of every job that is added meanwhile."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)
