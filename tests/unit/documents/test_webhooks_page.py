"""What docs/webhooks.md shows of a receiver is one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from forebay.core.webhook_secret import new_secret, signed_headers

PAGE = Path(__file__).resolve().parents[3] / "docs" / "webhooks.md"
SECRET, OTHER = new_secret(lambda size: b"a" * size), new_secret(lambda size: b"b" * size)


def test_its_receiver_takes_what_is_signed_and_nothing_else() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown: dict[str, Any] = {}
    exec(code.replace("whsec_...", SECRET), shown)
    body, now = b'{"type":"job.succeeded","data":{}}', int(time.time())
    assert shown["receive"](signed_headers([SECRET], "msg_1", now, body), body) == 204
    assert shown["receive"](signed_headers([OTHER], "msg_1", now, body), body) == 400
