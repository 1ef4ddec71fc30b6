"""`forebay batch`: a file of inputs in, a file of results out."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from msgspec import Struct

from forebay.cli.batch_results import PART_SUFFIX
from forebay.cli.options import Url
from forebay.cli.program import program
from forebay.core.errors import ForebayError, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from forebay.cli.batch_progress import Shown
    from forebay.cli.batch_results import Results
    from forebay.cli.connection import Refused
    from forebay.cli.service import Service

PIECE_BYTES = 64 * 1024
LOOK_EVERY_S = 0.5
PATIENCE_S = 60.0
"""For a service that is away: longer than it takes to start one again."""

FETCH_EVERY_S = 5.0
"""While the batch goes on: a job is kept for a minute at least once it is final."""

STATE_SUFFIX = ".batch"

T = TypeVar("T")


class Source(Struct, frozen=True):
    """The file of inputs as it is now."""

    path: Path
    lines: int
    digest: str


def batch(
    model: Annotated[str, typer.Argument(help="Of all lines that name none.", show_default=False)],
    inputs: Annotated[Path, typer.Argument(metavar="IN", help="JSON Lines, each with an `input`.", show_default=False)],
    outputs: Annotated[Path, typer.Argument(metavar="OUT", help="Where the results go.", show_default=False)],
    lane: Annotated[str | None, typer.Option(help="high, normal or low.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the model, for all lines."),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what is not done, then write the results.")] = False,
    url: Url = None,
) -> None:
    """Do every line of a file, and write the results in the same order. Exit code 0 only if all succeeded.

    Interrupted, the same command goes on where it was; OUT.batch knows how. No line is done twice.

    \b
    {"input": "What a lovely day", "custom_id": "row 1"}
    {"input": "It broke.", "parameters": {"top_k": 2}, "metadata": {"user": "ann"}}
    """
    from forebay.cli.batch_progress import showing
    from forebay.cli.batch_results import Results
    from forebay.cli.service import Service, service_url

    query = {"model": model, **({"lane": lane} if lane else {}), **_parameters(param or [])}
    state = outputs.with_name(outputs.name + STATE_SUFFIX)
    source = None if cancel else _read(inputs)
    with Service(service_url(url)) as service, showing(source.lines if source else 0) as shown:
        batch_id = _begin(state, outputs, source, query) if source else _begun(state)
        results = Results(service, batch_id, outputs)
        try:
            if source:
                found = _run(service, batch_id, source, query, results, shown, state)
            else:
                found = _cancel(service, batch_id, shown, state)
            _patiently(lambda: results.fetch(whole=True), shown)
        except KeyboardInterrupt:
            options = [*(["--lane", lane] if lane else []), *(word for one in param or [] for word in ("-p", one))]
            again = shlex.join(["batch", model, str(inputs), str(outputs), *options, *(["--url", url] if url else [])])
            shown.say(f"interrupted; the batch {batch_id} goes on. To go on from here: {program()} {again}")
            shown.say(f"To end it: {program()} {again} --cancel")
            raise typer.Exit(130) from None
    results.finish()
    state.unlink()
    shown.say(_ending(found, outputs))
    if results.lost:
        shown.say(f"of {results.lost} that succeeded the output is gone; each of their lines has the error")
    if results.lost or found["counts"]["succeeded"] != found["counts"]["total"]:
        raise typer.Exit(1)


def _run(
    service: Service,
    batch_id: str,
    source: Source,
    query: Mapping[str, str],
    results: Results,
    shown: Shown,
    state: Path,
) -> dict[str, Any]:
    """The batch, finished. A service that refuses to open it leaves no state, which would be of a mistake."""
    from forebay.cli.connection import Refused

    fetch = _now_and_then(results.fetch)
    found = _patiently(lambda: _look(service, batch_id), shown)
    if found is None or found["status"] == "incomplete":
        try:
            with _watched(service, batch_id, fetch, shown):
                found = _patiently(lambda: service.upload_batch(batch_id, query, _pieces(source)), shown)
        except Refused:
            if _is_unknown(service, batch_id):
                state.unlink()
            raise
        for one in found.get("rejected", ()):
            shown.say(f"line {one['line']}: {one['error']['message']} ({one['error']['code']})")
    while "finished_at" not in found:
        time.sleep(LOOK_EVERY_S)
        found = _patiently(lambda: service.batch(batch_id), shown)
        shown.counts(found["counts"], whole=True)
        _patiently(fetch, shown)
    return found


def _cancel(service: Service, batch_id: str, shown: Shown, state: Path) -> dict[str, Any]:
    """The batch, finished."""
    found = _patiently(lambda: _look(service, batch_id), shown)
    if found is None:
        state.unlink()
        raise InvalidRequest("nothing of it was sent")
    while "finished_at" not in found:
        found = _patiently(lambda: service.cancel_batch(batch_id), shown)
        shown.counts(found["counts"], whole=True)
    return found


def _now_and_then(call: Callable[[], None]) -> Callable[[], None]:
    """Every FETCH_EVERY_S, however often it is called."""
    called_at = time.monotonic()

    def perhaps() -> None:
        nonlocal called_at
        if time.monotonic() - called_at >= FETCH_EVERY_S:
            call()
            called_at = time.monotonic()

    return perhaps


@contextmanager
def _watched(service: Service, batch_id: str, fetch: Callable[[], None], shown: Shown) -> Iterator[None]:
    """Shows and fetches meanwhile what is done already."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY_S):
            with suppress(ForebayError):  # whoever sends hears of it
                shown.counts(service.batch(batch_id)["counts"], whole=False)
                fetch()

    watching = threading.Thread(target=watch, name="batch-watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _look(service: Service, batch_id: str) -> dict[str, Any] | None:
    """None if the service knows nothing of it yet."""
    from forebay.cli.connection import Refused

    try:
        return service.batch(batch_id)
    except Refused as error:
        if error.status == 404:
            return None
        raise


def _is_unknown(service: Service, batch_id: str) -> bool:
    """Whether the service surely has nothing of it."""
    try:
        return _look(service, batch_id) is None
    except ForebayError:
        return False


def _patiently(call: Callable[[], T], shown: Shown) -> T:
    """A service that is away, or full, is asked again for up to PATIENCE_S: what was sent before is not lost. A call
    that took longer had an answer meanwhile, so the time begins anew."""
    from forebay.cli.connection import Refused

    deadline, told = 0.0, False
    while True:
        began = time.monotonic()
        try:
            return call()
        except (Unavailable, Refused) as error:
            now, pause_s = time.monotonic(), _pause_s(error)
            if not deadline or now - began > PATIENCE_S:
                deadline = now + PATIENCE_S
            if pause_s is None or (time.monotonic() + pause_s > deadline and not _is_full(error)):
                raise
            if not told:
                told = True
                shown.say(f"{error.message}; trying again")
        time.sleep(pause_s)


def _is_full(error: Unavailable | Refused) -> bool:
    """Quotas and queues make room as jobs end: whoever waits in front of the screen may wait for that."""
    return not isinstance(error, Unavailable) and error.status == 429


def _pause_s(error: Unavailable | Refused) -> float | None:
    """When to ask again; None if that would change nothing."""
    if isinstance(error, Unavailable):
        return 1.0
    if error.status in (429, 503) or error.problem.get("code") == "idempotency_key_in_use":
        return float(error.problem.get("retry_after_s", 1.0))
    return None


def _read(path: Path) -> Source:
    from forebay.core.job_batch import LINES_MOST

    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                lines += piece.count(b"\n")
                last = piece[-1:]
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    lines += last != b"\n"
    if lines > LINES_MOST:
        raise InvalidRequest(f"{path} has {lines} lines; a batch has at most {LINES_MOST}: split it (split -l)")
    return Source(path, lines, digest.hexdigest())


def _pieces(source: Source) -> Iterator[bytes]:
    with open(source.path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _begin(state: Path, outputs: Path, source: Source, query: Mapping[str, str]) -> str:
    """The batch's id: that of the state file if it is of this file and this command, else a new one, which is written
    there before anything is sent."""
    asked = {"digest": source.digest, "query": dict(query)}
    if state.exists():
        known = _known(state)
        if {name: known.get(name) for name in asked} == asked:
            return str(known["batch"])
        raise InvalidRequest(
            f"{state} is of another file, model or option; give the same again, or remove it to begin anew, while what "
            "was sent goes on"
        )
    if outputs.exists():
        raise InvalidRequest(f"{outputs} is there already; remove it, or name another file")
    outputs.with_name(outputs.name + PART_SUFFIX).unlink(missing_ok=True)  # of another batch
    batch_id = str(uuid.uuid4())
    _write(state, json.dumps({"batch": batch_id, **asked}).encode() + b"\n")
    return batch_id


def _begun(state: Path) -> str:
    """The id of the batch that was begun, with whatever file."""
    if not state.exists():
        raise InvalidRequest(f"there is no {state}, so no batch to cancel")
    return str(_known(state)["batch"])


def _known(state: Path) -> dict[str, Any]:
    try:
        known = json.loads(state.read_text())
        if isinstance(known["batch"], str):
            return dict(known)
        raise TypeError("its batch is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{state} is no state of a batch ({error}); remove it to begin anew") from error


def _write(path: Path, text: bytes) -> None:
    try:
        part = path.with_name(path.name + PART_SUFFIX)
        with open(part, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from error


def _parameters(given: list[str]) -> dict[str, str]:
    """As the query takes them. A value is read as JSON where it is JSON, else as text."""
    found: dict[str, Any] = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not name or not separator:
            raise InvalidRequest(f"--param {one!r}: expected NAME=VALUE, such as top_k=3")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return {"parameters": json.dumps(found, sort_keys=True)} if found else {}


def _ending(found: Mapping[str, Any], outputs: Path) -> str:
    counts = {name: count for name, count in found["counts"].items() if count and name != "total"}
    told = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no lines"
    return f"{found['status']}: {told}; results in {outputs}"
