"""What inputs and outputs mean: per task a light module, which the API uses, and a codec for the runner."""

from __future__ import annotations

from functools import cache

from forebay.core.errors import Misconfigured
from forebay.ports.task import Task

TASKS = ("image-classification", "text-classification", "feature-extraction", "tensor", "json")


@cache
def task(name: str) -> Task:
    """The light side of a task; its module is imported now. Raises Misconfigured for a name not in TASKS."""
    if name == "image-classification":
        from forebay.tasks.image_classification import ImageClassification

        return ImageClassification()
    if name == "text-classification":
        from forebay.tasks.text_classification import TextClassification

        return TextClassification()
    if name == "feature-extraction":
        from forebay.tasks.feature_extraction import FeatureExtraction

        return FeatureExtraction()
    if name == "tensor":
        from forebay.tasks.tensor import Tensor

        return Tensor()
    if name == "json":
        from forebay.tasks.json_values import JsonValues

        return JsonValues()
    raise Misconfigured(f"there is no task {name!r}; choose one of {', '.join(TASKS)}")
