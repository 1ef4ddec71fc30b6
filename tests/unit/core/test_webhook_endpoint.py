"""What becomes of a webhook endpoint and its secrets."""

from __future__ import annotations

from msgspec.structs import replace

from forebay.core.webhook_endpoint import (
    ITSELF,
    OVERLAP_S,
    HeldSecret,
    WebhookEndpoint,
    disabled,
    enabled,
    itself_of,
    rotated,
    valid_secrets,
)
from forebay.core.webhook_secret import secret_bytes

NOW = 1_764_000_000.0
ENDPOINT = WebhookEndpoint(id="ep_1", tenant="acme", secrets=(HeldSecret(secret="one"),), created_at=NOW)


def test_two_secrets_sign_while_one_takes_the_others_place() -> None:
    changing = rotated(ENDPOINT, "two", NOW)
    assert valid_secrets(ENDPOINT, NOW) == ["one"]
    assert valid_secrets(changing, NOW) == ["two", "one"]
    assert valid_secrets(changing, NOW + OVERLAP_S) == ["two"]


def test_a_second_rotation_ends_the_first_of_three() -> None:
    changing = rotated(rotated(ENDPOINT, "two", NOW), "three", NOW + 1)
    assert valid_secrets(changing, NOW + 1) == ["three", "two"]


def test_without_an_overlap_the_old_secret_ends_at_once() -> None:
    assert rotated(ENDPOINT, "two", NOW, 0.0).secrets == (HeldSecret(secret="two"),)


def test_the_first_reason_to_disable_stays() -> None:
    off = disabled(ENDPOINT, NOW, "it answered 410")
    assert (off.disabled_at, off.disabled_reason) == (NOW, "it answered 410")
    assert disabled(off, NOW + 1, "something else") == off


def test_enabled_again_it_has_a_clean_sheet_and_its_secrets() -> None:
    changing = rotated(ENDPOINT, "two", NOW)
    assert enabled(disabled(replace(changing, failing_since=NOW), NOW, "down for days")) == changing


def test_what_a_tenant_keeps_for_itself_signs() -> None:
    own = itself_of("acme", lambda count: bytes(range(count)), NOW)
    assert (own.id, own.tenant, own.created_at) == (ITSELF, "acme", NOW)
    (secret,) = valid_secrets(own, NOW)
    assert secret_bytes(secret) == bytes(range(32))
