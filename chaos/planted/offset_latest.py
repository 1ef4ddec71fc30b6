"""A group that has committed nothing yet begins at the end of the log, and not at its beginning."""

from __future__ import annotations

from confluent_kafka import OFFSET_END

from forebay.adapters.kafka import reader


def plant() -> None:
    setattr(reader, "OFFSET_BEGINNING", OFFSET_END)  # noqa: B010 - mypy sees no name that a module only imports
