"""The whole service on real input, in one command: `make demo`.

Starts `forebay up` as a process of its own on free ports and a scratch data folder, submits every sample photo and
sentence over HTTP at once, so that they share batches, prints what came back, and stops everything again. Exits with 0
only if every answer is right and no process is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from forebay.testing.service import RunningService, ServiceFailed

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "examples" / "samples"

START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

screen = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 120)


class Sample(Struct, frozen=True):
    """One input with the answer that models/README.md expects."""

    model: str
    name: str
    expected: str
    photo: bytes = b""


class Answer(Struct, frozen=True):
    sample: Sample
    job: dict[str, Any]

    @property
    def label(self) -> str:
        output = self.job.get("output")
        return str(output[0]["label"]) if output else str(self.job.get("error", {}).get("message", self.job["status"]))

    @property
    def right(self) -> bool:
        return self.job["status"] == "succeeded" and self.label == self.sample.expected


class DemoFailed(Exception):
    """Something that should not happen; the message says what."""


def main() -> int:
    samples = [*photos(), *sentences()]
    with tempfile.TemporaryDirectory(prefix="forebay-demo-", ignore_cleanup_errors=True) as scratch:
        service = RunningService(Path(scratch) / "data", ROOT / "models")
        try:
            answers = ask(service, samples)
            stop(service)
        except (DemoFailed, ServiceFailed, httpx2.HTTPError, subprocess.TimeoutExpired) as error:
            screen.print(f"the demo failed: {str(error) or type(error).__name__}", style="red", markup=False)
            if not isinstance(error, ServiceFailed):  # which has told it already
                screen.print(f"the end of the service's log:\n{service.log_tail()}", markup=False)
            return 1
        except KeyboardInterrupt:
            screen.print("interrupted")
            return 130
        finally:
            service.kill()
    right = sum(answer.right for answer in answers)
    screen.print(f"\n{right} of {len(answers)} answers are right; everything is stopped again.")
    return 0 if right == len(samples) else 1


def photos() -> list[Sample]:
    return [
        Sample("image_classification", one["file"], one["expected_top1"], (SAMPLES / one["file"]).read_bytes())
        for one in json.loads((SAMPLES / "images.json").read_text(encoding="utf-8"))
    ]


def sentences() -> list[Sample]:
    return [
        Sample("text_classification", one["text"], one["expected_label"])
        for one in json.loads((SAMPLES / "sentences.json").read_text(encoding="utf-8"))
    ]


def ask(service: RunningService, samples: Sequence[Sample]) -> list[Answer]:
    """Start the service, submit everything, print the answers."""
    begun = time.monotonic()
    with screen.status("starting forebay up and loading the models ..."):
        service.start(START_TIMEOUT_S)
    screen.print(f"forebay up is ready at {service.url} after {time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    with screen.status(f"asking about {len(samples)} photos and sentences at once ..."):
        answers = asyncio.run(submit_all(service.url, samples))
    screen.print(f"{len(answers)} answers after {time.monotonic() - begun:.2f} s:\n")
    screen.print(table(answers))
    return answers


async def submit_all(url: str, samples: Sequence[Sample]) -> list[Answer]:
    # A proxy of the environment is not for a service on this machine.
    async with httpx2.AsyncClient(base_url=url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        return await asyncio.gather(*(submit(client, sample) for sample in samples))


async def submit(client: httpx2.AsyncClient, sample: Sample) -> Answer:
    """A photo goes as the body of the request, a sentence as JSON; then wait for the job's end."""
    if sample.photo:
        accepted = await client.post(
            f"/v1/models/{sample.model}/jobs", content=sample.photo, headers={"content-type": "image/jpeg"}
        )
    else:
        accepted = await client.post("/v1/jobs", json={"model": sample.model, "input": sample.name})
    job = checked(accepted, 202)
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while job["status"] in ("queued", "running"):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{sample.name} is still {job['status']} after {ANSWER_TIMEOUT_S:g} s")
        job = checked(await client.get(job["urls"]["self"], params={"wait": 20}), 200)
    return Answer(sample, job)


def checked(response: httpx2.Response, status: int) -> dict[str, Any]:
    if response.status_code != status:
        raise DemoFailed(
            f"{response.request.method} {response.url.path} answered {response.status_code}: {response.text}"
        )
    document = response.json()
    if not isinstance(document, dict):
        raise DemoFailed(f"{response.url.path} answered no JSON object")
    return document


def table(answers: Sequence[Answer]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for_input = min(60, max(20, screen.width - 62))  # the other columns are read to their last digit
    made.add_column("input", width=for_input, no_wrap=True, overflow="ellipsis")
    made.add_column("label", no_wrap=True)
    for name in ("score", "queue", "batch", "inference"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("")
    for answer in answers:
        measured = answer.job.get("metrics", {})
        output = answer.job.get("output") or [{}]
        verdict = "[green]right[/]" if answer.right else f"[red]wrong: expected {answer.sample.expected}[/]"
        made.add_row(
            answer.sample.name,
            answer.label,
            f"{output[0].get('score', 0):.3f}",
            f"{1000 * measured.get('queue_s', 0):.0f} ms",
            str(measured.get("batch_size", "")),
            f"{1000 * measured.get('predict_s', 0):.0f} ms",
            verdict,
        )
    return made


def stop(service: RunningService) -> None:
    """SIGTERM, and nothing of it is left."""
    family = children_of(service.pid)
    with screen.status("stopping ..."):
        code = service.stop(STOP_TIMEOUT_S)
    if code != 0:
        raise DemoFailed(f"the service ended with exit code {code}")
    left = family & set(parents())
    if left:
        raise DemoFailed(f"processes are left: {sorted(left)}")


def children_of(ancestor: int) -> set[int]:
    """Every process below `ancestor`."""
    found, tree = {ancestor}, parents()
    while more := {pid for pid, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def parents() -> dict[int, int]:
    """The parent of every process that runs now."""
    if not os.path.isdir("/proc/self"):
        rows = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return {int(pid): int(parent) for pid, parent in (row.split() for row in rows.splitlines())}
    tree = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name in brackets: state, parent (proc(5)).
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[0] != "Z":
            tree[int(folder.name)] = int(fields[1])
    return tree


if __name__ == "__main__":
    sys.exit(main())
