"""No document of ours, and no docstring, points to a document that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md"), *ROOT.glob("examples/*.md")]
SOURCES = [path for folder in ("src", "chaos", "benchmarks", "dev") for path in (ROOT / folder).rglob("*.py")]
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
NAMED = re.compile(r"`?(docs/[\w./-]+\.md)`?")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    missing = [target for target in LINK.findall(text) if not (document.parent / target).exists()]
    missing += [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def test_every_page_that_a_docstring_names_exists() -> None:
    named = {(name, path) for path in SOURCES for name in NAMED.findall(path.read_text())}
    assert {"docs/settings.md", "docs/decisions/settings.md"} <= {name for name, _ in named}
    assert [f"{name} in {path.relative_to(ROOT)}" for name, path in sorted(named) if not (ROOT / name).exists()] == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("*.md")} - {"README.md"}
