"""What we sign the standard's own library takes, what it signs we take, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

import forebay
from forebay.core.errors import InvalidRequest
from forebay.core.webhook_secret import new_secret, secret_bytes, sign, verify

NOW = 1_764_400_000
BODY = b'{"type":"job.succeeded"}'
SECRETS = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
IDS = st.from_regex(r"msg_[A-Za-z0-9_-]{1,64}", fullmatch=True)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\u00e9\u6f22\U0001f642"), inner, max_size=3),
    max_leaves=6,
)


def secret_of(byte: int) -> str:
    return new_secret(lambda length: bytes([byte]) * length)


def headers_of(secrets: list[str], body: bytes = BODY, timestamp: int = NOW) -> dict[str, str]:
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, "msg_1", timestamp, body),
    }


@given(SECRETS, IDS, JSON_VALUES)
def test_the_standards_library_takes_what_we_sign(secret: str, webhook_id: str, value: object) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    stamp = int(time.time())
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(stamp)}
    headers["webhook-signature"] = sign([secret], webhook_id, stamp, body)
    assert standardwebhooks.Webhook(secret).verify(body, headers) == value


@given(SECRETS, IDS, JSON_VALUES, st.integers(0, 2**33))
def test_we_take_what_the_standards_library_signs(secret: str, webhook_id: str, value: object, stamp: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    signature = standardwebhooks.Webhook(secret).sign(webhook_id, datetime.fromtimestamp(stamp, UTC), text)
    assert sign([secret], webhook_id, stamp, text.encode()) == signature
    headers = {"Webhook-Id": webhook_id, "Webhook-Timestamp": str(stamp), "Webhook-Signature": signature}
    assert verify(text.encode(), headers, [secret], stamp) == value


def test_the_bytes_are_those_of_the_standard() -> None:
    """The vector by which the standard's own libraries, in every language, are tested."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.integers(1, 4), st.integers(0, 3))
def test_while_secrets_change_either_one_will_do(count: int, known: int) -> None:
    secrets = [secret_of(byte) for byte in range(count)]
    headers = headers_of(secrets, timestamp=int(time.time()))
    assert headers["webhook-signature"].count("v1,") == count
    secret = secrets[known % count]
    assert standardwebhooks.Webhook(secret).verify(BODY, headers) == {"type": "job.succeeded"}
    assert verify(BODY, headers, [secret_of(9), secret], time.time()) == {"type": "job.succeeded"}


def test_unknown_versions_are_passed_over() -> None:
    headers = headers_of([secret_of(1)])
    headers["webhook-signature"] = f"v1a,AAAA v2 , v1, v1 nonsense {headers['webhook-signature']} v9,x"
    assert verify(BODY, headers, [secret_of(1)], NOW) == {"type": "job.succeeded"}
    headers["webhook-signature"] = headers_of([secret_of(1)])["webhook-signature"].replace("v1,", "v2,")
    with pytest.raises(forebay.WebhookNotVerified):
        verify(BODY, headers, [secret_of(1)], NOW)


def change(name: str, value: str | None) -> Callable[[dict[str, str]], None]:
    def apply(headers: dict[str, str]) -> None:
        headers.pop(name)
        if value is not None:
            headers[name] = value

    return apply


@pytest.mark.parametrize(
    ("altered", "code"),
    [
        (change("webhook-id", None), "webhook_header_missing"),
        (change("webhook-timestamp", None), "webhook_header_missing"),
        (change("webhook-signature", ""), "webhook_header_missing"),
        (lambda headers: headers.update({"WEBHOOK-ID": "msg_2"}), "webhook_header_malformed"),
        (change("webhook-timestamp", "1.5e9"), "webhook_header_malformed"),
        (change("webhook-timestamp", "\u0661" * 10), "webhook_header_malformed"),
        (change("webhook-timestamp", f" {NOW}"), "webhook_header_malformed"),
        (change("webhook-timestamp", "9" * 5000), "webhook_header_malformed"),
        (change("webhook-timestamp", str(NOW - 301)), "webhook_too_old"),
        (change("webhook-timestamp", str(NOW + 301)), "webhook_too_new"),
        (change("webhook-timestamp", str(NOW + 1)), "webhook_signature_wrong"),
        (change("webhook-id", "msg_2"), "webhook_signature_wrong"),
        (change("webhook-signature", "v1,"), "webhook_signature_wrong"),
        (change("webhook-signature", "v1,\ud800"), "webhook_signature_wrong"),
    ],
)
def test_what_was_altered_is_refused_and_the_error_says_why(
    altered: Callable[[dict[str, str]], None], code: str
) -> None:
    headers = headers_of([secret_of(1)])
    altered(headers)
    with pytest.raises(forebay.WebhookNotVerified) as caught:
        verify(BODY, headers, [secret_of(1)], NOW)
    assert caught.value.code == code


@pytest.mark.parametrize("body", [BODY + b" ", b"", BODY.replace(b"succeeded", b"failed")])
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(forebay.WebhookNotVerified, match="no signature"):
        verify(body, headers_of([secret_of(1)]), [secret_of(1)], NOW)


def test_another_secret_is_refused() -> None:
    with pytest.raises(forebay.WebhookNotVerified, match="no signature"):
        verify(BODY, headers_of([secret_of(1)]), [secret_of(2)], NOW)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_clock_may_be_five_minutes_off(seconds: int) -> None:
    assert verify(BODY, headers_of([secret_of(1)]), [secret_of(1)], NOW + seconds)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 200_000, b"1" * 5000])
def test_what_is_signed_and_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(forebay.WebhookNotVerified) as caught:
        verify(body, headers_of([secret_of(1)], body), [secret_of(1)], NOW)
    assert caught.value.code == "webhook_body_malformed"


@given(
    st.binary(),
    st.fixed_dictionaries(
        {"webhook-id": st.text(st.characters()), "Webhook-Timestamp": st.just(str(NOW)) | st.text()},
        optional={"webhook-signature": st.text(st.characters()).map("v1,".__add__), "x": st.text()},
    ),
)
def test_garbage_is_refused_and_nothing_worse(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(forebay.WebhookNotVerified):
        verify(body, headers, [secret_of(1)], NOW)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_is_never_taken(at: int, byte: int) -> None:
    headers = headers_of([secret_of(1)])
    signature = bytearray(headers["webhook-signature"].encode())
    at %= len(signature)
    headers["webhook-signature"] = bytes([*signature[:at], byte, *signature[at + 1 :]]).decode("latin-1")
    same = byte == signature[at]
    with contextlib.nullcontext() if same else pytest.raises(forebay.WebhookNotVerified):
        verify(BODY, headers, [secret_of(1)], NOW)


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "begins with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsec_", "24 to 64 bytes, not 0"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64 bytes, not 23"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64 bytes, not 65"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa\u00df\u00df", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "base64"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str, why: str) -> None:
    for use in (
        lambda: secret_bytes(secret),
        lambda: sign([secret], "msg_1", NOW, BODY),
        lambda: verify(BODY, headers_of([secret_of(1)]), [secret], NOW),
    ):
        with pytest.raises(InvalidRequest, match=why) as caught:
            use()
        assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in caught.value.message


@given(st.binary(min_size=32, max_size=32))
def test_a_new_secret_is_of_the_random_bytes(random: bytes) -> None:
    secret = new_secret(lambda length: random[:length])
    assert secret_bytes(secret) == random
    assert sign([secret], "a", 1, b"") == (
        "v1," + base64.b64encode(hmac.new(random, b"a.1.", hashlib.sha256).digest()).decode()
    )


@pytest.mark.parametrize("webhook_id", ["", "msg_1.5"])
def test_an_id_that_would_move_the_border_is_never_signed(webhook_id: str) -> None:
    with pytest.raises(ValueError, match="no webhook id"):
        sign([secret_of(1)], webhook_id, NOW, BODY)


def test_nothing_is_sent_or_taken_without_a_secret() -> None:
    with pytest.raises(ValueError, match="nothing to sign with"):
        sign([], "msg_1", NOW, BODY)
    with pytest.raises(InvalidRequest, match="no webhook secret"):
        verify(BODY, headers_of([secret_of(1)]), [], NOW)


@pytest.mark.parametrize("body", [BODY, BODY.decode()])
def test_the_public_name_takes_one_secret_or_several(body: bytes | str) -> None:
    headers = headers_of([secret_of(1)], timestamp=int(time.time()))
    assert forebay.verify_webhook(body, headers, secret_of(1)) == {"type": "job.succeeded"}
    assert forebay.verify_webhook(body, headers, [secret_of(2), secret_of(1)]) == {"type": "job.succeeded"}
    with pytest.raises(forebay.WebhookNotVerified):
        forebay.verify_webhook(body, headers_of([secret_of(1)], timestamp=NOW), secret_of(1))
