"""What workers say of the models they serve: whether they are ready, and how fast they get on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

from forebay.core.model import ModelStatus
from forebay.core.pace import Pace


class ModelReport(Struct, frozen=True, kw_only=True):
    """One worker's word on one model. `reason` says why it is unavailable, in words an operator can act on.

    `restarts` counts how often a runner of it, or the worker itself, has died; `restarting`: that is why it is not
    ready. `away`: a backend that it needs cannot be reached. `pace` is None until something was measured.
    """

    worker: str
    model: str
    version: str
    status: ModelStatus
    reason: str = ""
    replicas_ready: int = 0
    restarts: int = 0
    restarting: bool = False
    away: bool = False
    pace: Pace | None = None


class Fleet(ABC):
    """Best effort: a report may be late or lost; nothing about a job depends on it."""

    @abstractmethod
    async def report(self, report: ModelReport) -> None:
        """Replaces this worker's earlier report on the same model and version."""

    @abstractmethod
    async def reports(self) -> Sequence[ModelReport]:
        """The newest report of each worker, model and version; of those only that were heard of lately."""
