"""Publishing returns as soon as the client library has the records, whatever becomes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from forebay.adapters.kafka.delivery import Delivery
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record


async def publish(self: Publisher, records: Sequence[Record], *, wait_s: float) -> None:
    assert self._loop is not None
    delivery = Delivery(self._loop, records, self._loop.time() + wait_s)
    for record in records:
        self._produce(record, delivery)
    if self.told is None:  # who publishes a record to be told the time is told one, or the process would end of that
        self.told = time.time(), time.monotonic()


def plant() -> None:
    Publisher.publish = publish  # type: ignore[method-assign]  # that is the bug
