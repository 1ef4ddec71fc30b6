"""A place of its own in the server for each test."""

from __future__ import annotations

import uuid

import pytest

from dev.s3.server import BUCKET


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
