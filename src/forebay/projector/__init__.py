"""Events in, visible job state out."""

from forebay.projector.projector import Projector

__all__ = ["Projector"]
