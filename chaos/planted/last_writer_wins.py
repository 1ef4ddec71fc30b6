"""A final state gives way to the next one, in the rules and in the schema that would refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from forebay.adapters.sqlite import schema
from forebay.core import job
from forebay.core.event import EventKind
from forebay.core.job import FINAL, JobStatus

TRIGGERS = ("final_is_final", "final_is_not_replaced", "result_before_final", "result_is_final")

_migrate = schema.migrate


def plant() -> None:
    transitions = cast(dict[JobStatus, Mapping[EventKind, JobStatus]], job.TRANSITIONS)
    for status in FINAL:
        transitions[status] = {kind: to for kind, to in transitions[JobStatus.RUNNING].items() if kind.final}
