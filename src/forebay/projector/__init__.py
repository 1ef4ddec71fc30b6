"""Events in, visible job state out."""

from forebay.projector.lag import LagWatch
from forebay.projector.projector import Projector
from forebay.projector.rebuild import Progress, rebuild

__all__ = ["LagWatch", "Progress", "Projector", "rebuild"]
