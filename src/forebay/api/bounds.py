"""Bounds in the OpenAPI document that the service's settings decide: those of a job's clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.core.clocks import MIN_RUN_TIMEOUT_S, ClockLimits

_SUBMISSIONS = ("JobSubmission", "LineSubmission")


def add_bounds(document: Mapping[str, Any], clocks: ClockLimits) -> None:
    """To the clocks in every body and query. A model may set a limit of its own to `run_timeout_s`, which is less."""
    bounds: Mapping[str, Mapping[str, float]] = {
        "start_within_s": {"maximum": min(clocks.max_start_within_s, clocks.max_life_s)},
        "run_timeout_s": {"minimum": MIN_RUN_TIMEOUT_S, "maximum": clocks.max_run_timeout_s},
        "retain_s": {"minimum": clocks.min_retain_s, "maximum": clocks.max_retain_s},
    }
    for name, bound in bounds.items():
        for submission in _SUBMISSIONS:
            for kind in document["components"]["schemas"][submission]["properties"][name]["anyOf"]:
                if kind["type"] == "number":
                    kind.update(bound)
        for methods in document["paths"].values():
            for operation in methods.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] == name:
                        parameter["schema"] = {**parameter["schema"], **bound}
