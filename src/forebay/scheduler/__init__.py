"""What time brings about."""

from forebay.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
