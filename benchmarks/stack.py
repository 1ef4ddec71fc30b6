"""A service under measurement, whoever wrote it: `POST /inference` answers 202 with a `request_id`, `GET /result/ID`
202 while pending and then 200 with `"status":"succeeded"`."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Stack(Struct, frozen=True, kw_only=True):
    """`roles` holds the process of each part, brokers and databases included; what they start counts with them."""

    name: str
    url: str
    roles: Mapping[str, int]
