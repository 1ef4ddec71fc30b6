"""Attempts are counted, and the count dies with its process: what is committed says nothing of them."""

from __future__ import annotations

from forebay.adapters.kafka.tracker import Tracker

_metadata = Tracker.metadata


def metadata(self: Tracker) -> str | None:
    marks, self._marks = self._marks, {}
    try:
        return _metadata(self)
    finally:
        self._marks = marks


def plant() -> None:
    Tracker.metadata = metadata  # type: ignore[method-assign]  # that is the bug
