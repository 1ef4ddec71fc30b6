from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from forebay.telemetry.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    structlog.get_logger().info("job.succeeded", job="1", model="m")
    [line] = lines(stream)
    assert list(line) == ["time", "level", "event", "job", "model"]
    assert (line["level"], line["event"], line["job"], line["model"]) == ("info", "job.succeeded", "1", "m")
    assert str(line["time"]).endswith("Z")


def test_libraries_write_the_same_lines() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    logging.getLogger("some.library").warning("disk %s is full", "a")
    logging.getLogger("uvicorn.error").error("lost it")
    assert [(line["event"], line["level"], line["logger"]) for line in lines(stream)] == [
        ("disk a is full", "warning", "some.library"),
        ("lost it", "error", "uvicorn.error"),
    ]


def test_warnings_of_python_are_logged() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old" in str(lines(stream)[0]["event"])


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure_logs("warning", "json", stream)
    structlog.get_logger().info("batch.done")
    logging.getLogger("some.library").info("hello")
    structlog.get_logger().warning("runner.died")
    assert [line["event"] for line in lines(stream)] == ["runner.died"]


def test_debug_of_libraries_is_never_written_since_it_may_hold_payloads() -> None:
    stream = io.StringIO()
    configure_logs("debug", "json", stream)
    logging.getLogger("some.library").debug("body: secret")
    structlog.get_logger().debug("job.received")
    assert [line["event"] for line in lines(stream)] == ["job.received"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_variables(form: str) -> None:
    stream = io.StringIO()
    configure_logs("info", form, stream)  # type: ignore[arg-type]  # a parameter of the test, both are valid

    def fail() -> None:
        payload = "".join(["an ", "input", " of ", "somebody"])
        raise ValueError(len(payload))

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("loop.failed")
        logging.getLogger("some.library").exception("failed")
    assert "ValueError: 20" in stream.getvalue()
    assert "an input of somebody" not in stream.getvalue()


def test_a_value_that_json_cannot_say_is_still_written() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    structlog.get_logger().info("service.ready", error=ValueError("x"))
    assert lines(stream)[0]["error"] == "ValueError('x')"


def test_auto_is_for_people_on_a_terminal_and_for_programs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, pipe = Terminal(), io.StringIO()
    configure_logs("info", "auto", terminal)
    structlog.get_logger().info("service.ready", port=1)
    configure_logs("info", "auto", pipe)
    structlog.get_logger().info("service.ready", port=1)
    assert "service.ready" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert lines(pipe)[0]["port"] == 1


def test_setting_up_twice_writes_each_line_once() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    configure_logs("info", "json", stream)
    logging.getLogger("some.library").warning("once")
    assert len(lines(stream)) == 1
