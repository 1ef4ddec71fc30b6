"""What the tests of the SQLite adapter share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.adapters.sqlite import Database
from forebay.ports.queue import Durability


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path, durability=Durability.FLUSHED).open()
    yield database
    await database.close()
