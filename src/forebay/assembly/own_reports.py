"""What this process says of its models, whatever becomes of the saying."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.ports.fleet import Fleet, ModelReport


class OwnReports(Fleet):
    """Hands reports on to a fleet and keeps those of this process, so that its start need ask nobody else."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._own: dict[tuple[str, str], ModelReport] = {}

    @property
    def own(self) -> Sequence[ModelReport]:
        return list(self._own.values())

    async def report(self, report: ModelReport) -> None:
        self._own[report.model, report.version] = report
        await self._fleet.report(report)

    async def reports(self) -> Sequence[ModelReport]:
        return await self._fleet.reports()
