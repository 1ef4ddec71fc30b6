"""The clocks of models must fit the service's."""

from __future__ import annotations

import pytest

from forebay.assembly.clocks import check_models, check_store, clock_limits, foreign_clocks
from forebay.catalog import Catalog
from forebay.core.errors import Misconfigured
from forebay.core.model import ModelLimits, ModelSpec
from forebay.settings import Settings


def catalog(retain_s: float | None) -> Catalog:
    limits = ModelLimits(retain_s=retain_s)
    spec = ModelSpec(name="m", version="1", task="json", runtime="python", folder="/m/1", limits=limits)
    return Catalog(specs={"m": {"1": spec}}, problems={}, untrusted=frozenset())


def test_a_model_that_keeps_its_jobs_for_too_long_is_refused_at_the_start() -> None:
    for fits in (None, 60.0, 518_400.0):
        check_models(Settings(), catalog(fits))
    with pytest.raises(Misconfigured, match=r"518400 s.*\n.*m/model.toml: limits.retain_s: 518401 s"):
        check_models(Settings(), catalog(518_401.0))


def test_a_job_is_kept_for_what_it_says_else_its_model_else_the_service() -> None:
    limits = clock_limits(Settings(retain_s=70.0))
    assert limits.retain_of(90.0, ModelLimits(retain_s=80.0)) == 90.0
    assert limits.retain_of(None, ModelLimits(retain_s=80.0)) == 80.0
    assert limits.retain_of(None, ModelLimits()) == 70.0


def test_records_of_other_producers_have_the_clocks_of_the_settings_and_of_their_model() -> None:
    clocks = foreign_clocks(Settings(retain_s=70.0, max_life_s=600.0), catalog(80.0))
    assert clocks.headers("m") == {"forebay-retain-s": "80.0", "forebay-max-life-s": "600.0"}
    assert clocks.headers("other") == {"forebay-retain-s": "70.0", "forebay-max-life-s": "600.0"}


def test_a_scheduler_beside_a_store_of_one_process_is_refused() -> None:
    kafka = Settings(queue="kafka://one", blobs="s3://bucket")
    with pytest.raises(Misconfigured, match="forebay run api projector scheduler"):
        check_store(kafka, ["scheduler"])
    check_store(kafka, ["api", "projector", "scheduler"])
    check_store(kafka, ["worker"])
    check_store(Settings(queue="kafka://one", blobs="s3://bucket", store="postgresql://db/f"), ["scheduler"])
    check_store(Settings(), ["api", "worker", "projector", "scheduler"])
