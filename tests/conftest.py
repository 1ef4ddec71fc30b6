"""What every test shares: asyncio as the only event loop, long files first, and no skip that passes unnoticed."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

pytest_plugins = ["dev.kafka.fixtures", "dev.postgres.fixtures", "dev.s3.fixtures"]

# Where nobody reads the output, a test that was skipped is a test that did not run, so the run fails.
SKIPS_FAIL = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

TYPICAL_S = {TESTS / name: 0.5 for name in ("contract", "postgres", "s3")}
TYPICAL_S |= {TESTS / "scenario": 10.0, TESTS / "kafka": 4.0}
"""What a test of each folder takes, roughly; of the others, hundredths of a second."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first, by the number and the folder of its tests.

    `make test` hands out whole files in this order: what is long and waits more than it works begins at once, and what
    is quick fills the rest, so that all processes end together.
    """
    takes_s: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        takes_s[item.path] += TYPICAL_S.get(item.path.parent, 0.02)
    items.sort(key=lambda item: -takes_s[item.path])


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
