"""Storms, each with a verdict of one screen. The same seed makes the same choices; when they fall is the machine's.

python -m chaos embedded --seed 7
python -m chaos kills --strike projector # no other kind of process is hit
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

from chaos.beside import PATIENTS, TIMED, Beside
from chaos.cluster import KINDS
from chaos.planted import FOUND_BY
from chaos.report import Line, Order, Part, line_of, table
from chaos.stage import Stage

STORMS = ("embedded", "long_poll", "rebalance", "rebuild", "poison", "cancel", "copies", "webhooks", "broker", "kills")
"""In the order in which all of them run: the quick ones first."""


PREPARED_FROM = "rebalance"
"""From then on every kind of Kafka is needed soon, and starts while storms wait."""


def main() -> None:
    chosen = _arguments()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    bad: list[str] = []
    lines: list[Line] = []
    began = time.monotonic()
    wanted = _wanted(chosen.storms, chosen.planted)
    beside = PATIENTS if chosen.short and wanted == _wanted([], "") else ()
    with (
        tempfile.TemporaryDirectory(prefix="forebay-stage-") as ground,
        Stage(Path(ground)) as stage,
        Beside(beside, seed) as others,
    ):
        for name, planted in wanted:
            if name in beside:
                continue
            if name == PREPARED_FROM and len(wanted) > 1:
                stage.prepare("old", "hasty", "three")
            if name == TIMED and not others.ended_well():
                bad += beside
            folder = Path(tempfile.mkdtemp(prefix=f"forebay-{name}-"))
            strike = chosen.strike or (FOUND_BY[planted].strike if planted else "")
            order = Order(folder=folder, stage=stage, seed=seed, short=chosen.short, planted=planted, strike=strike)
            if (_finds if planted else _holds)(name, order, lines):
                shutil.rmtree(folder)
            else:
                bad.append(f"{name} {planted}".rstrip())
                print(f"what it left is in {folder}")
    print(f"\n{table(lines, time.monotonic() - began)}", flush=True)
    if bad:
        sys.exit(f"not as it must be: {', '.join(bad)}")


def _wanted(storms: Sequence[str], planted: str) -> list[tuple[str, str]]:
    """Storms, each with the bug to run with or ""."""
    if planted == "all":
        return [(finder.storm, bug) for bug, finder in FOUND_BY.items()]
    if planted:
        return [(storm, planted) for storm in storms or [FOUND_BY[planted].storm]]
    return [(storm, "") for storm in storms or STORMS]


def _holds(name: str, order: Order, lines: list[Line]) -> bool:
    parts = list(_run(name, order))
    lines += [line_of(name, part) for part in parts]
    return all(part.good for part in parts)


def _finds(name: str, order: Order, lines: list[Line]) -> bool:
    """Whether the bug was found, by a promise that it breaks, after as many parts as that takes."""
    promises = FOUND_BY[order.planted].promises
    seconds, found = 0.0, {}
    for part in _run(name, order):
        seconds += part.seconds
        found = {promise: count for promise, count in part.verdict.broken.items() if promise in promises}
        if found:
            break
    outcome = f"FOUND, {found}" if found else f"NOT FOUND by any of {', '.join(sorted(promises))}"
    print(f"planted {order.planted}: {outcome}", flush=True)
    told = ", ".join(f"{promise}={count}" for promise, count in found.items())
    line = replace(line_of(name, part), title=f"planted {order.planted}", seconds=seconds)
    lines.append(replace(line, verdict=f"found: {told}" if found else "NOT FOUND"))
    return bool(found)


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
    parser.add_argument("--strike", default="", choices=KINDS, help="the only kind of process that `kills` hits")
    chosen = parser.parse_args()
    if chosen.planted not in ("", "all", *FOUND_BY):
        parser.error(f"no such bug: {chosen.planted}; there are {bugs}")
    unknown = sorted(set(chosen.storms) - set(STORMS))
    if unknown:
        parser.error(f"no such storm: {', '.join(unknown)}; there are {', '.join(STORMS)}")
    return chosen


if __name__ == "__main__":
    main()
