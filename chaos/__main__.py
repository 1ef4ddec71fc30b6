"""Storms, each with a verdict of one screen. The same seed makes the same choices; when they fall is the machine's.

python -m chaos embedded --seed 7
python -m chaos --short                  # all of them, as short as they can be
python -m chaos --short --planted all    # each bug of chaos/planted in the storm that must find it
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from chaos.planted import FOUND_BY
from chaos.report import Order, Part
from chaos.stage import Stage

STORMS = ("embedded", "long_poll", "rebalance", "rebuild", "poison", "broker", "kills")
"""In the order in which all of them run: the quick ones first."""


def main() -> None:
    chosen = _arguments()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    bad: list[str] = []
    with tempfile.TemporaryDirectory(prefix="forebay-stage-") as ground, Stage(Path(ground)) as stage:
        for name, planted in _wanted(chosen.storms, chosen.planted):
            folder = Path(tempfile.mkdtemp(prefix=f"forebay-{name}-"))
            order = Order(folder=folder, stage=stage, seed=seed, short=chosen.short, planted=planted)
            if (_finds if planted else _holds)(name, order):
                shutil.rmtree(folder)
            else:
                bad.append(f"{name} {planted}".rstrip())
                print(f"what it left is in {folder}")
    if bad:
        sys.exit(f"not as it must be: {', '.join(bad)}")


def _wanted(storms: Sequence[str], planted: str) -> list[tuple[str, str]]:
    """Storms, each with the bug to run with or ""."""
    if planted == "all":
        return [(storm, bug) for bug, storm in FOUND_BY.items()]
    if planted:
        return [(storm, planted) for storm in storms or [FOUND_BY[planted]]]
    return [(storm, "") for storm in storms or STORMS]


def _holds(name: str, order: Order) -> bool:
    parts = list(_run(name, order))
    return all(part.good for part in parts)


def _finds(name: str, order: Order) -> bool:
    """Whether the bug was found, after as many parts as that takes."""
    for part in _run(name, order):
        if part.verdict.broken:
            print(f"planted {order.planted}: FOUND, {part.verdict.broken}", flush=True)
            return True
    print(f"planted {order.planted}: NOT FOUND")
    return False


def _run(name: str, order: Order) -> Iterator[Part]:
    """Each part is printed as soon as it is judged."""
    began = time.monotonic()
    for part in importlib.import_module(f"chaos.storms.{name}").storm(order):
        timed = replace(part, seconds=time.monotonic() - began)
        print(f"\n=== {name}  seed={order.seed}  {timed}", flush=True)
        yield timed
        began = time.monotonic()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("storms", nargs="*", metavar="STORM", help=f"of {', '.join(STORMS)}; all if none is named")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--short", action="store_true", help="as little as still proves something")
    bugs = ", ".join(FOUND_BY)
    parser.add_argument("--planted", default="", metavar="BUG", help=f"run with a bug, to be found: {bugs}, or all")
    chosen = parser.parse_args()
    if chosen.planted not in ("", "all", *FOUND_BY):
        parser.error(f"no such bug: {chosen.planted}; there are {bugs}")
    unknown = sorted(set(chosen.storms) - set(STORMS))
    if unknown:
        parser.error(f"no such storm: {', '.join(unknown)}; there are {', '.join(STORMS)}")
    return chosen


if __name__ == "__main__":
    main()
