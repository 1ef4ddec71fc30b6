"""Questions to brokers that are not ready for them yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dev.kafka.broker import Broker

CHILD = Path(__file__).parent / "asking_child.py"

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("kafka")  # which says what is missing where there is none
def test_who_asks_how_far_groups_are_lives_while_a_new_brokers_coordinators_load(tmp_path: Path) -> None:
    """The library's own question for it ends the process, in 4 of 5 runs of this."""
    with Broker(tmp_path) as broker:
        child = subprocess.run([sys.executable, str(CHILD), broker.bootstrap], capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (0, "")
    assert int(child.stdout.removesuffix(" told\n")) > 0
