"""What the log holds."""

from __future__ import annotations

from forebay.core.event import JobEvent, JobRequest
from forebay.core.job_batch import BatchEvent

Event = JobEvent | BatchEvent
Fact = JobRequest | JobEvent | BatchEvent
