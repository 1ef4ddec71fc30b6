"""A process that asks how far groups are that nobody has heard of, in threads: `asking_child.py BOOTSTRAP`."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import Offsets
from forebay.core.errors import Unavailable

ASKING = 12
GROUPS_EACH = 8


def ask(bootstrap: str, number: int) -> int:
    offsets, told = Offsets(KafkaLink(bootstrap=bootstrap)), 0
    for group in range(GROUPS_EACH):
        with contextlib.suppress(Unavailable):  # the coordinator may be loading for longer than a question waits
            told += len(offsets.committed(f"group.{number}.{group}", ["topic:0"]))
    return told


def main(bootstrap: str) -> None:
    with ThreadPoolExecutor(ASKING) as threads:
        told = sum(threads.map(lambda number: ask(bootstrap, number), range(ASKING)))
    sys.stdout.write(f"{told} told\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
