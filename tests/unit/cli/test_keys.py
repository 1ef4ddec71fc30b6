"""Keys are made, listed, rotated and revoked from a shell; what they are is shown once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ran

Forebay = Callable[..., Ran]
TOKEN = re.compile(r"fby_[0-9a-f]{12}_[A-Za-z0-9_-]{43}\n")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def listed(forebay: Forebay) -> list[dict[str, object]]:
    found: list[dict[str, object]] = forebay("keys", "ls", "--json").json
    return found


def created(forebay: Forebay, *arguments: str) -> str:
    """The token."""
    ran = forebay("keys", "create", *arguments)
    assert ran.code == 0, ran.err
    assert TOKEN.fullmatch(ran.out)
    return ran.out.strip()


def test_a_key_is_alone_on_standard_output_and_told_of_beside_it(forebay: Forebay) -> None:
    ran = forebay("keys", "create", "--name", "ci", "--tenant", "acme", "--expires", "90d")
    assert TOKEN.fullmatch(ran.out)
    assert "of tenant acme may cancel, read, submit, until 20" in ran.err
    assert "not shown again" in ran.err
    [key] = listed(forebay)
    assert (key["tenant"], key["name"], key["scopes"], key["state"]) == (
        "acme",
        "ci",
        ["cancel", "read", "submit"],
        "active",
    )
    assert ran.out.strip() not in json.dumps(key)


def test_scopes_are_those_that_were_asked_for(forebay: Forebay) -> None:
    created(forebay, "--scope", "read", "--scope", "admin")
    assert listed(forebay)[0]["scopes"] == ["admin", "read"]


def test_a_revoked_key_stays_listed(forebay: Forebay) -> None:
    key_id = created(forebay).split("_")[1]
    assert forebay("keys", "revoke", key_id) == Ran(0, f"{key_id} is revoked\n", "")
    assert forebay("keys", "revoke", key_id).code == 0
    assert [key["state"] for key in listed(forebay)] == ["revoked"]
    assert "revoked" in forebay("keys", "ls").out


def test_a_rotated_key_ends_after_the_overlap_and_the_new_one_may_do_the_same(forebay: Forebay) -> None:
    old = created(forebay, "--tenant", "acme", "--name", "ci", "--scope", "read").split("_")[1]
    ran = forebay("keys", "rotate", old, "--overlap", "0s")
    assert TOKEN.fullmatch(ran.out)
    first, second = listed(forebay)
    assert (first["id"], first["state"]) == (old, "expired")
    assert second["state"] == "active"
    assert all(second[member] == first[member] for member in ("tenant", "name", "scopes"))


def test_a_rotated_key_lives_as_long_as_the_old_one_did(forebay: Forebay) -> None:
    old = created(forebay, "--expires", "2h").split("_")[1]
    forebay("keys", "rotate", old)
    first, second = listed(forebay)
    assert str(second["expires_at"])[:13] >= str(first["expires_at"])[:13]


def test_a_key_that_has_ended_is_not_rotated(forebay: Forebay) -> None:
    old = created(forebay).split("_")[1]
    forebay("keys", "revoke", old)
    ran = forebay("keys", "rotate", old)
    assert ran.code == 1
    assert "is revoked" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--expires", "soon"), "such as 90d"),
        (("create", "--tenant", "a/b"), "tenant 'a/b'"),
        (("revoke", "nobody"), "there is no key 'nobody'"),
        (("rotate", "nobody"), "there is no key 'nobody'"),
        (("ls", "--queue", "memory://", "--store", "memory://", "--blobs", "memory://"), "api_key_file"),
    ],
)
def test_what_cannot_be_is_told(arguments: tuple[str, ...], words: str, forebay: Forebay) -> None:
    ran = forebay("keys", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err


def test_without_keys_it_says_so(forebay: Forebay) -> None:
    assert "nobody is asked" in forebay("keys", "ls").err
