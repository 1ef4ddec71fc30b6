"""What time brings about."""

from forebay.scheduler.scheduler import Scheduler
from forebay.scheduler.timekeeper import Timekeeper, TimekeeperPlan

__all__ = ["Scheduler", "Timekeeper", "TimekeeperPlan"]
