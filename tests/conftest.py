"""What every test shares: asyncio as the only event loop, and no skip that passes unnoticed."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["dev.kafka.fixtures", "dev.postgres.fixtures", "dev.s3.fixtures"]

# Where nobody reads the output, a test that was skipped is a test that did not run, so the run fails.
SKIPS_FAIL = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


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
