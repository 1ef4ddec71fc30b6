"""Events in, visible job state out."""

from forebay.projector.lag import LagWatch
from forebay.projector.projector import Projector

__all__ = ["LagWatch", "Projector"]
