"""What workers say of the models they serve, for `/v1/models` and `/readyz`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

from forebay.core.model import ModelStatus


class ModelReport(Struct, frozen=True, kw_only=True):
    """One worker's word on one model. `reason` says why it is unavailable, in words an operator can act on."""

    worker: str
    model: str
    version: str
    status: ModelStatus
    reason: str = ""
    replicas_ready: int = 0


class Fleet(ABC):
    """Best effort: a report may be late or lost; nothing about a job depends on it."""

    @abstractmethod
    async def report(self, report: ModelReport) -> None:
        """Replaces this worker's earlier report on the same model and version."""

    @abstractmethod
    async def reports(self) -> Sequence[ModelReport]:
        """The newest report of each worker, model and version."""
