"""A job is acknowledged as soon as its attempt is on record: what then dies with its worker never runs again."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.lanes import Lane
from forebay.core.message import ReceivedMessage
from forebay.worker.intake import Intake

_begin = Intake.begin


async def begin(self: Intake, starting: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
    await _begin(self, starting)
    for lane, received in starting:
        await self._consumers[lane].ack([received])


def plant() -> None:
    Intake.begin = begin  # type: ignore[method-assign]  # that is the bug
