"""`python -m benchmarks [QUESTION ...]`: all of them, or those named. Exit status 0 whatever the figures say."""

from __future__ import annotations

import argparse
import inspect
from datetime import UTC, datetime

from benchmarks import end_to_end, images, latency, memory, submit
from benchmarks.report import machine

QUESTIONS = {"submit": submit, "end_to_end": end_to_end, "images": images, "latency": latency, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="*", help=", ".join(QUESTIONS))
    chosen = parser.parse_args().question or list(QUESTIONS)
    if unknown := set(chosen) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n{machine()}\n", flush=True)
    figures = []
    for name in chosen:
        print(f"{name}: {(inspect.getdoc(QUESTIONS[name]) or '').splitlines()[0]}", flush=True)
        figures += QUESTIONS[name].measure()
        print(flush=True)
    for figure in figures:
        print(figure)


if __name__ == "__main__":
    main()
