"""Word to the workers that nobody wants a job any more, so that none works in vain."""

from __future__ import annotations

from abc import ABC, abstractmethod

from forebay.core.canceled import CanceledJobs


class Cancellations(ABC):
    """A hint and no promise: a job is canceled by its `canceled` event, which is in the log before anybody is told
    here. So whoever hears of a job here need say nothing of it any more."""

    def __init__(self) -> None:
        self.heard = CanceledJobs()
        """What was announced, by any process, as far as it has come here."""

    @abstractmethod
    async def announce(self, tenant: str, job_id: str) -> None:
        """Tell every worker, those too that start in the next hours. Best effort: it raises nothing, and repeating it
        is harmless."""
