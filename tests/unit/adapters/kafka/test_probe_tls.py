"""Wrong files of TLS stop the start and name their setting; they are looked at before any broker is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.adapters.kafka.probe import probe
from forebay.core.errors import Misconfigured


def refusal(**fields: Any) -> str:
    link = KafkaLink(bootstrap="no broker is asked", security=Security(protocol="ssl", **fields))
    with pytest.raises(Misconfigured) as caught:
        probe(link)
    return str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert f"kafka_ca_file: {tmp_path / 'ca.pem'} cannot be read" in refusal(ca_file=str(tmp_path / "ca.pem"))


@pytest.mark.parametrize("text", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_authorities_that_cannot_be_understood_are_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(text)
    assert f"kafka_ca_file: {file} is no PEM file of authorities" in refusal(ca_file=str(file))


def test_a_certificate_of_ours_that_cannot_be_understood_is_told(tmp_path: Path) -> None:
    certificate, key = tmp_path / "our.pem", tmp_path / "our.key"
    certificate.write_text("garbage")
    key.write_text("garbage")
    told = refusal(certificate_file=str(certificate), key_file=str(key))
    assert "kafka_certificate_file, kafka_key_file" in told
    assert str(certificate) in told
