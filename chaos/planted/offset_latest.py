"""A group that has committed nothing yet begins at the end of the log, and not at its beginning."""

from __future__ import annotations

from confluent_kafka import OFFSET_END

import forebay.adapters.kafka.reader as reader


def plant() -> None:
    reader.OFFSET_BEGINNING = OFFSET_END
