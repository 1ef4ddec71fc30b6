"""Reports of workers that live in the same process."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.ports.fleet import Fleet, ModelReport


class MemoryFleet(Fleet):
    def __init__(self) -> None:
        self._reports: dict[tuple[str, str, str], ModelReport] = {}

    async def report(self, report: ModelReport) -> None:
        self._reports[report.worker, report.model, report.version] = report

    async def reports(self) -> Sequence[ModelReport]:
        return list(self._reports.values())
