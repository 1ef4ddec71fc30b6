"""What a receiver of webhooks calls: `forebay.verify_webhook`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.webhook_secret import verify


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str | Sequence[str]) -> Any:
    """The payload of a webhook, parsed, if it was signed with `secret` within the last five minutes.

    `body` is what arrived, unparsed: another encoding of the same JSON has another signature. `headers` are the
    request's, in any case. `secret` is `whsec_...`, or several of them while they change.

    Raises WebhookNotVerified, which says what is wrong: answer 400 then. Raises InvalidRequest for a secret that is
    none. The same webhook may arrive twice: what was done already is known by its `webhook-id`.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    return verify(raw, headers, [secret] if isinstance(secret, str) else secret, time.time())
