"""Job ids: known by any replica, to their tenant only."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.errors import Misconfigured
from forebay.core.ids import IdMint, is_uuid, uuid_of_retry

SECRET = b"a secret of enough length"
NOW = 1_764_000_000.123


def mint(*secrets: bytes, seed: int = 1) -> IdMint:
    return IdMint(secrets or (SECRET,), random.Random(seed).randbytes)


def test_an_id_is_a_version_7_uuid_and_sixteen_hex_digits() -> None:
    issued = mint().issue("default", NOW)
    parsed = uuid.UUID(issued[:36])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert str(parsed) == issued[:36]
    assert issued[36] == "-"
    assert len(issued) == 53
    assert issued[37:] == f"{int(issued[37:], 16):016x}"


@given(st.text(max_size=20), st.integers(0, 2**48 - 1), st.integers())
def test_whoever_holds_the_secret_knows_when_it_was_issued(tenant: str, unix_ms: int, seed: int) -> None:
    issued = mint(seed=seed).issue(tenant, unix_ms / 1000)
    at = mint().issued_at(tenant, issued)
    assert at is not None
    assert abs(at - unix_ms / 1000) <= 0.001


def test_it_is_unknown_to_another_tenant() -> None:
    issued = mint().issue("default", NOW)
    for tenant in ("other", "", "defaul", "default\0", "Default"):
        assert mint().issued_at(tenant, issued) is None


def test_it_is_unknown_without_the_secret() -> None:
    assert mint(b"another secret of enough length").issued_at("default", mint().issue("default", NOW)) is None


def test_any_changed_character_makes_it_unknown() -> None:
    issued = mint().issue("default", NOW)
    for place, character in enumerate(issued):
        for other in "0f-Gé\0":
            if other != character:
                assert mint().issued_at("default", issued[:place] + other + issued[place + 1 :]) is None


@given(st.text(max_size=60))
def test_any_other_text_is_unknown(text: str) -> None:
    assert mint().issued_at("default", text) is None


def test_shorter_longer_and_upper_case_texts_are_unknown() -> None:
    issued = mint().issue("default", NOW)
    for text in ("", issued[:-1], issued + "0", issued + "\n", issued.upper(), f" {issued}"):
        assert mint().issued_at("default", text) is None


def test_secrets_can_be_rotated() -> None:
    old, new = b"the old secret, long enough", b"the new secret, long enough"
    before = mint(old).issue("default", NOW)
    rotating = mint(new, old)
    after = rotating.issue("default", NOW)
    assert rotating.issued_at("default", before) is not None
    assert mint(new).issued_at("default", after) is not None
    assert mint(old).issued_at("default", after) is None
    assert mint(new).issued_at("default", before) is None


def test_ids_sort_by_the_time_of_issue() -> None:
    issuing = mint()
    issued = [issuing.issue("default", NOW + n / 100) for n in range(-300, 300)]
    assert sorted(issued) == issued


def test_ids_of_one_instant_differ() -> None:
    issuing = mint()
    assert len({issuing.issue("default", NOW) for _ in range(1000)}) == 1000


def test_the_uuid_of_a_retry_follows_from_the_job_and_the_count() -> None:
    job_id = mint().issue("default", NOW)
    assert uuid_of_retry("default", job_id, 1) == uuid_of_retry("default", job_id, 1)
    others = {uuid_of_retry("default", job_id, number) for number in range(1, 100)}
    others |= {uuid_of_retry("other", job_id, 1), uuid_of_retry("default", mint(seed=2).issue("default", NOW), 1)}
    assert len(others) == 101
    assert all(is_uuid(one) and uuid.UUID(one).version == 8 for one in others)


def test_uuids_of_retries_are_for_ever() -> None:
    """A retry that is repeated by a later version is the same job."""
    assert (
        uuid_of_retry("acme", "019ab697-e756-7d82-8a63-86d2c96e819b-033c9fb296809265", 1)
        == "5111f5ca-1fe3-8901-aae1-e4d6ad231997"
    )


@pytest.mark.parametrize("secrets", [(), (b"short",), (SECRET, b"")])
def test_a_missing_or_short_secret_is_refused(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(Misconfigured, match="secret"):
        IdMint(secrets, random.Random(1).randbytes)
