"""Forebay: asynchronous model inference. Clients get 202 and an id; the request waits durably; workers batch it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forebay.core.errors import ModelFailed as ModelFailed
    from forebay.core.errors import WebhookNotVerified as WebhookNotVerified
    from forebay.webhooks.verifying import verify_webhook as verify_webhook

__version__ = "0.1.0"

_PUBLIC = {
    "ModelFailed": "forebay.core.errors",
    "WebhookNotVerified": "forebay.core.errors",
    "verify_webhook": "forebay.webhooks.verifying",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: so that `import forebay` costs nothing."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'forebay' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
