"""What the log holds."""

from __future__ import annotations

from forebay.core.delivery import DeliveryEvent
from forebay.core.event import JobEvent, JobRequest
from forebay.core.job_batch import BatchEvent

JobFact = JobRequest | JobEvent
Event = JobEvent | BatchEvent | DeliveryEvent
Fact = JobFact | BatchEvent | DeliveryEvent
