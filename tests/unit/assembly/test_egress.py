"""What the settings open to webhooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.assembly.egress import egress_policy
from forebay.core.egress import EgressPolicy
from forebay.core.errors import InvalidRequest
from forebay.settings import Settings, load_settings


def test_by_default_nothing_but_public_https_is_open() -> None:
    assert egress_policy(Settings(), whole=False) == EgressPolicy()


def test_the_settings_open_networks_hosts_and_ports(tmp_path: Path) -> None:
    given = {
        "FOREBAY_WEBHOOK_ALLOW_NETWORKS": "10.20.0.0/16, fd12::/64",
        "FOREBAY_WEBHOOK_HTTP_HOSTS": "Receiver.internal,10.20.0.7,FD12:0::7",
        "FOREBAY_WEBHOOK_PORTS": "443,8443",
    }
    policy = egress_policy(load_settings({}, given, tmp_path), whole=False)
    for url in (
        "https://10.20.30.40:8443/",
        "https://[fd12::1]/",
        "http://receiver.internal/",
        "http://10.20.0.7:8443/",
        "http://[fd12::7]/",
    ):
        policy.check_url(url)
    for url in ("https://10.21.0.1/", "http://10.20.0.8/", "https://127.0.0.1/", "https://169.254.169.254/"):
        with pytest.raises(InvalidRequest):
            policy.check_url(url)


@pytest.mark.parametrize(
    ("host", "whole", "opened"),
    [("127.0.0.1", True, True), ("localhost", True, True), ("127.0.0.1", False, False), ("0.0.0.0", True, False)],
)
def test_a_whole_service_that_only_this_machine_reaches_may_send_to_it(host: str, whole: bool, opened: bool) -> None:
    assert egress_policy(Settings(host=host), whole=whole).loopback is opened
