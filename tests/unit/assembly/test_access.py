"""Nobody opens a service to others without meaning it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from forebay.adapters.memory import MemoryApiKeys
from forebay.assembly.access import prepare_access
from forebay.core.api_key import Scope
from forebay.core.errors import Misconfigured
from forebay.settings import Settings
from forebay.testing.api_keys_contract import KEY

SECRET = "a-secret-of-an-operators-own-making"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "forebay.example"])
async def test_a_host_that_others_can_reach_takes_a_key_or_must_be_meant(host: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        await prepare_access(Settings(host=host), MemoryApiKeys())
    for remedy in ("forebay keys create", "FOREBAY_API_KEY_FILE", "127.0.0.1", "FOREBAY_ALLOW_UNAUTHENTICATED"):
        assert remedy in refused.value.message
    assert await prepare_access(Settings(host=host, allow_unauthenticated=True), MemoryApiKeys()) is False
    keys = MemoryApiKeys()
    await keys.put(KEY)
    assert await prepare_access(Settings(host=host), keys) is True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
async def test_loopback_needs_no_key(host: str) -> None:
    assert await prepare_access(Settings(host=host), MemoryApiKeys()) is False


async def test_the_first_key_comes_from_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    keys = MemoryApiKeys()
    for _ in range(2):
        assert await prepare_access(Settings(host="0.0.0.0", api_key_file=str(path)), keys) is True
    [key] = await keys.all()
    assert key.is_secret(SECRET)
    assert (key.tenant, key.scopes) == ("default", frozenset(Scope))


async def test_a_revoked_first_key_is_not_taken_in_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(SECRET)
    keys = MemoryApiKeys()
    settings = Settings(api_key_file=str(path))
    await prepare_access(settings, keys)
    [key] = await keys.all()
    await keys.put(replace(key, revoked_at=1.0))
    with pytest.raises(Misconfigured, match="is revoked"):
        await prepare_access(settings, keys)


@pytest.mark.parametrize("content", [None, b"short", b"\xff" * 40, b"", b"two words that are long enough in all"])
async def test_a_file_that_holds_no_key_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match="api_key_file: "):
        await prepare_access(Settings(api_key_file=str(path)), MemoryApiKeys())
