"""The pages that are written from code are those that the code would write now (`make docs`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("pages", ROOT / "dev" / "docs.py")
assert SPEC is not None
assert SPEC.loader is not None
pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pages)


@pytest.mark.parametrize("name", sorted(pages.PAGES))
def test_a_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == pages.PAGES[name]()


def test_hidden_settings_stand_on_no_page_and_secrets_have_no_option() -> None:
    page = pages.settings_page()
    assert "crash_at" not in page
    assert "--secrets" not in page
