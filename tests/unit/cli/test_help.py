"""What `forebay --help` shows, and what it does not import to show it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.unit.cli.conftest import Ran

import forebay as package
from forebay.settings import Settings, meaning_of, option_name

Forebay = Callable[..., Ran]

HEAVY = ("apsw", "fastapi", "httpx2", "numpy", "onnxruntime", "pydantic", "rich", "starlette", "tokenizers", "uvicorn")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, atexit\n"
        "from forebay.cli import main\n"
        "atexit.register(lambda: print('imported', *sys.modules))\n"
        "main(['--help'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    help_text, _, imported = ran.stdout.partition("imported ")
    assert "submit" in help_text
    assert sorted(set(HEAVY) & {name.partition(".")[0] for name in imported.split()}) == []


def test_help_lists_the_commands(forebay: Forebay) -> None:
    ran = forebay("--help")
    assert ran.code == 0
    listed = [line.split()[0] for line in ran.out.partition("Commands:\n")[2].splitlines()]
    assert listed == [
        "up",
        "run",
        "submit",
        "batch",
        "queues",
        "doctor",
        "jobs",
        "dlq",
        "keys",
        "quotas",
        "webhooks",
        "models",
        "topics",
        "store",
    ]


def test_version(forebay: Forebay) -> None:
    assert forebay("--version") == Ran(0, f"forebay {package.__version__}\n", "")


@pytest.mark.parametrize("command", [("up",), ("run",), ("doctor",), ("models", "validate"), ("store", "rebuild")])
def test_every_setting_is_an_option_but_for_secrets(command: tuple[str, ...], forebay: Forebay) -> None:
    words = set(forebay(*command, "--help").out.split())
    for name in Settings.model_fields:
        meaning = meaning_of(name)
        assert (option_name(name) in words) == (not meaning.secret and not meaning.hidden), name


def test_a_wrong_command_line_ends_with_2(forebay: Forebay) -> None:
    assert forebay("sumbit").code == 2
    assert forebay("run", "nobody").code == 2
    assert forebay("up", "--no-such-option").code == 2
