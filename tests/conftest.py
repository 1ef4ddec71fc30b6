"""What every test shares: asyncio as the only event loop, and no skip that passes unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["dev.kafka.fixtures", "dev.postgres.fixtures", "dev.s3.fixtures"]

HERE = Path(__file__).parent

# Where nobody reads the output, a test that was skipped is a test that did not run, so the run fails.
SKIPS_FAIL = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


# Servers that a session starts once. Tests that need one wait more than they work, so `make test` runs all of them in
# one process and, beside it, the rest in another, file by file: two cores are busy, and there is one server of each
# kind.
SERVERS = {
    "session_kafka",
    "session_kafka_cluster",
    "session_old_kafka",
    "session_secure_kafka",
    "session_postgres",
    "s3",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs_server = not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))
        apart = item.path.relative_to(HERE).parts[0] in ("kafka", "postgres", "s3")  # some ask for theirs by name
        item.add_marker(pytest.mark.xdist_group("servers" if needs_server or apart else str(item.path)))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Forebay runs on asyncio only; without this anyio runs each test on trio as well."""
    return "asyncio"


def skipped_tests(config: pytest.Config) -> list[str]:
    """One line, `where: why`, for each test and each file that was skipped."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    lines = []
    for report in reporter.stats.get("skipped", []) if reporter else []:
        # For a skip, pytest keeps (file, line, "Skipped: reason").
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        lines.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
    return lines


def pytest_sessionfinish(session: pytest.Session) -> None:
    if SKIPS_FAIL and session.exitstatus == pytest.ExitCode.OK and skipped_tests(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = skipped_tests(config)
    if not skipped:
        return
    verdict = "CI=true: a skip fails the run" if SKIPS_FAIL else "a skip fails the run where CI=true"
    terminalreporter.section(f"{len(skipped)} SKIPPED; {verdict}", yellow=not SKIPS_FAIL, red=SKIPS_FAIL)
    for line in skipped:
        terminalreporter.line(line, yellow=not SKIPS_FAIL, red=SKIPS_FAIL)
