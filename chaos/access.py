"""What an operator puts into a store, by the product's own commands: a key and a quota."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.testing.service import output_of

JOBS_A_DAY = 10**9
"""A quota that no storm comes near."""


def grant(settings: Mapping[str, str]) -> str:
    """Gives the tenant `default`, whose jobs all those of a storm are, a quota and a key; returns what the key is.
    From then on nobody is served without one. Raises ServiceFailed."""
    output_of("quotas", "set", "default", "--per-day", str(JOBS_A_DAY), settings=settings)
    return output_of("keys", "create", "--name", "storm", settings=settings).strip()
