"""The server of dev/s3 does what the tests built on it take for granted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError
from tests.s3.client import raw_objects

from dev.s3.server import S3PROXY, S3Server


def test_a_name_is_given_once(s3: S3Server, url: str) -> None:
    objects = raw_objects(url, s3.options)
    objects.put("name", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        objects.put("name", b"second", mode="create")
    assert bytes(objects.get("name").bytes()) == b"first"


def test_what_was_accepted_is_there_after_a_kill(s3: S3Server, url: str) -> None:
    objects = raw_objects(url, s3.options)
    objects.put("name", b"bytes")
    s3.bounce(hard=True)
    assert bytes(objects.get("name").bytes()) == b"bytes"


def test_a_wrong_key_is_refused(s3: S3Server, url: str) -> None:
    objects = raw_objects(url, {**s3.options, "secret_access_key": "wrong"})
    with pytest.raises(PermissionDeniedError):
        objects.put("name", b"bytes")


def test_the_version_is_the_one_of_the_pom(s3: S3Server) -> None:
    assert f"s3proxy-{S3PROXY.version}.jar" in {jar.name for jar in S3PROXY.folder.iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_this_machine_can_connect(s3: S3Server) -> None:
    port = f":{int(s3.endpoint.rpartition(':')[2]):04X}"
    listening = [
        columns[1]
        for table in ("tcp", "tcp6")
        for columns in map(str.split, Path(f"/proc/{s3.pid}/net/{table}").read_text().splitlines()[1:])
        if columns[1].endswith(port) and columns[3] == "0A"
    ]
    assert listening == [f"0100007F{port}"]
