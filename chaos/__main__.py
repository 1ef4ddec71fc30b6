"""Storms, each with a verdict of one screen. The same seed makes the same choices; when they fall is the machine's.

python -m chaos embedded --seed 7
python -m chaos --short              # all of them, as short as they can be
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from chaos.planted import BUGS
from chaos.report import Order, Part
from chaos.stage import Stage

STORMS = ("embedded", "long_poll", "rebalance", "rebuild", "poison", "broker", "kills")
"""In the order in which all of them run: the quick ones first."""


def main() -> None:
    chosen = _arguments()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    bad: list[str] = []
    with tempfile.TemporaryDirectory(prefix="forebay-stage-") as ground, Stage(Path(ground)) as stage:
        for name in chosen.storms or STORMS:
            folder = Path(tempfile.mkdtemp(prefix=f"forebay-{name}-"))
            order = Order(folder=folder, stage=stage, seed=seed, short=chosen.short, planted=chosen.planted)
            parts = list(_run(name, order))
            held = any(part.verdict.broken for part in parts) if chosen.planted else all(part.good for part in parts)
            if held:
                shutil.rmtree(folder)
            else:
                bad.append(name)
                print(f"what it left is in {folder}")
    if bad:
        words = "did not find the planted bug" if chosen.planted else "did not hold, or did too little"
        sys.exit(f"{', '.join(bad)}: {words}")


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
    parser.add_argument(
        "--planted", default="", metavar="BUG", help="run with this bug of chaos/planted: it must be found"
    )
    chosen = parser.parse_args()
    if chosen.planted and chosen.planted not in BUGS:
        parser.error(f"no such bug: {chosen.planted}; there are {', '.join(BUGS)}")
    unknown = sorted(set(chosen.storms) - set(STORMS))
    if unknown:
        parser.error(f"no such storm: {', '.join(unknown)}; there are {', '.join(STORMS)}")
    return chosen


if __name__ == "__main__":
    main()
