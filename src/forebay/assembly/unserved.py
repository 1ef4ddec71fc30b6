"""What of the models folder and of the settings about it does not hold, told once at the start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

import structlog
from msgspec import Struct

from forebay.catalog import Catalog

log = structlog.get_logger()


class UnknownTrust(Struct, frozen=True):
    """A name in `trusted_models` that is no model here. No mistake in itself: several services may share a setting."""

    name: str
    known: Sequence[str]
    meant: str

    def __str__(self) -> str:
        there = f"there: {', '.join(self.known)}" if self.known else "there are none"
        hint = f"; did you mean {self.meant!r}?" if self.meant else ""
        return f"{self.name!r} in trusted_models (FOREBAY_TRUSTED_MODELS) is no model here ({there}){hint}"


def unserved(catalog: Catalog, wanted: Collection[str]) -> Mapping[str, str]:
    """Why models are not served, by name; of all, or of those wanted. For one that is served in part: the rest."""
    return {name: "; ".join(why) for name, why in catalog.problems.items() if not wanted or name in wanted}


def unknown_trust(catalog: Catalog, trusted: Collection[str]) -> list[UnknownTrust]:
    known = sorted({*catalog.specs, *catalog.problems})
    return [
        UnknownTrust(name, known, next(iter(get_close_matches(name, known, n=1)), ""))
        for name in trusted
        if name not in known
    ]


def log_unserved(catalog: Catalog, wanted: Collection[str], trusted: Collection[str]) -> None:
    """An event for each model, and for each trusted name that is none."""
    for name, reason in unserved(catalog, wanted).items():
        event = "model.unavailable" if name not in catalog.specs else "model.version_unavailable"
        log.error(event, model=name, reason=reason)
    for one in unknown_trust(catalog, trusted):
        log.warning("trusted_model.not_found", model=one.name, known=one.known, did_you_mean=one.meant)
