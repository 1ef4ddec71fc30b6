"""`python -m benchmarks [GROUP | GROUP/QUESTION ...]`: all groups, or what is named. Exit status 0 whatever the figures
say, 1 if a question could not be asked."""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from types import ModuleType

from benchmarks.peers.environment import PeersUnavailable
from benchmarks.report import machine

GROUPS = {
    "embedded": ("submit", "end_to_end", "images", "latency", "explain", "memory", "malformed"),
    "store": ("rates", "listing"),
    "kafka": ("submit", "producer", "end_to_end", "latency", "worker", "memory"),
    "webhooks": ("deliveries", "tarpits"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="*", help=", ".join(_all()))
    chosen = parser.parse_args().question or list(GROUPS)
    questions: dict[str, ModuleType] = {}
    for name in chosen:
        found = {one: place for one, place in _all().items() if name in (one, one.partition("/")[0])}
        if not found:
            parser.error(f"no such question: {name}; there are {', '.join([*GROUPS, *_all()])}")
        questions |= {one: import_module(place) for one, place in found.items()}
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n{machine()}\n", flush=True)
    figures = []
    unmeasured = False
    for name, question in questions.items():
        began = time.monotonic()
        print(f"{name}: {' '.join((inspect.getdoc(question) or '').partition(chr(10) * 2)[0].split())}", flush=True)
        try:
            figures += question.measure()
        except PeersUnavailable as error:
            print(f"  not measured: {error}")
            unmeasured = True
        print(f"  ({time.monotonic() - began:.0f} s)\n", flush=True)
    for figure in figures:
        print(figure)
    if unmeasured:
        sys.exit(1)


def _all() -> Mapping[str, str]:
    """Where each question is answered."""
    return {f"{group}/{name}": f"benchmarks.{group}.{name}" for group, names in GROUPS.items() for name in names}


if __name__ == "__main__":
    main()
