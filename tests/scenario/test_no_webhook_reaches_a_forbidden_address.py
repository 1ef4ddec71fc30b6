"""Whatever URL a job names and whatever its DNS server says, not one packet goes to an address that is not allowed, and
every allowed receiver is reached.

tests/fuzz/egress_world.py runs once, in a network namespace of its own in which every address is served, and reports
what was sent and what arrived. The destinations that are allowed are written down here, so that they are not what the
guard thinks. Two programs without the guard go through the same: if they reached nothing forbidden, neither the URLs
nor the rounds would prove anything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FUZZING = "FUZZ_REQUESTS" in os.environ
ROUNDS = 20_000 if FUZZING else 2_000
SEED = os.environ.get("FUZZ_SEED", "1")
PUBLIC = {"93.184.216.34", "2606:2800:220:1::1"}
NAMED = ["*.test", "public.test", "both.test", "public-nat64.test", "opened.test", "opened6.test"]
ADDRESSED = [*PUBLIC, "10.77.0.9", "fd77::9"]

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120 + ROUNDS // 50)]

Report = dict[str, Any]


def own_namespace() -> list[str]:
    """What a command is run with to be root of a network of its own. Skips where that cannot be had."""
    for program in ("unshare", "ip", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: Linux with util-linux, iproute2 and openssl has it")
    command = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made: run as root, or allow user namespaces")
    return command


def make_certificates(folder: Path) -> None:
    """An authority, and a certificate of every name and address that is allowed."""
    (folder / "world.ext").write_text(
        "subjectAltName=" + ",".join([*(f"DNS:{name}" for name in NAMED), *(f"IP:{one}" for one in ADDRESSED)])
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    signer = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    for arguments in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "1"],
        ["req", *key, "-keyout", "world.key", "-out", "world.csr", "-subj", "/CN=world"],
        ["x509", "-req", "-in", "world.csr", "-out", "world.crt", *signer, "-extfile", "world.ext", "-days", "1"],
    ):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    namespace, folder = own_namespace(), tmp_path_factory.mktemp("world")
    make_certificates(folder)
    world = [sys.executable, str(ROOT / "tests" / "fuzz" / "egress_world.py"), str(folder), str(ROUNDS), SEED]
    ran = subprocess.run([*namespace, *world], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def forbidden(opened: dict[str, int], allowed: set[str]) -> dict[str, int]:
    return {address: count for address, count in opened.items() if address not in allowed}


def test_of_hostile_urls_only_public_redirects_are_sent_to_and_none_is_followed(report: Report) -> None:
    kinds = [json.loads(line) for line in (ROOT / "tests" / "fuzz" / "hostile_urls.jsonl").read_text().splitlines()]
    assert len(kinds) >= 250
    assert forbidden(report["guarded"]["opened"], PUBLIC) == {}
    for (kind, url), (_, outcome) in zip(kinds, report["guarded"]["results"], strict=True):
        expected = url.partition("status=")[2][:3] if kind == "redirect" else "egress_refused"
        assert outcome == expected, url


def test_the_guard_at_the_socket_holds_alone(report: Report) -> None:
    """As if the URL had not been read, and as if redirects were followed."""
    assert forbidden(report["at the socket"]["opened"], PUBLIC) == {}
    assert dict(report["at the socket"]["results"])["https://[::ffff:127.0.0.1]/hook"] == "egress_refused"


def test_the_urls_are_hostile_to_whoever_has_no_guard(report: Report) -> None:
    reached = forbidden(report["unguarded"]["opened"], PUBLIC)
    assert sum(reached.values()) >= 150
    assert {"127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"} <= reached.keys()


def test_every_answer_of_a_name_that_rebinds_is_judged_and_none_is_asked_twice(report: Report) -> None:
    rebinding = report["rebinding"]
    outcomes, each = Counter(rebinding["outcomes"]), ROUNDS // 5
    assert forbidden(rebinding["opened"], PUBLIC) == {}
    good = rebinding["good"]["flip.test"]
    assert outcomes == {
        "flip.test 200": good,
        "flip.test egress_refused": 2 * each - good,
        "shuffled.test egress_refused": each,
        "six.test egress_refused": each,
        "plain.test 200": each,
    }
    assert rebinding["questions"] == {"flip.test": 2 * each, "shuffled.test": each, "six.test": each}
    assert rebinding["opened"]["93.184.216.34"] == good + each


def test_the_rounds_rebind_whoever_checks_first_and_connects_then(report: Report) -> None:
    assert sum(forbidden(report["check then connect"]["opened"], PUBLIC).values()) >= 10


def test_every_allowed_receiver_is_reached_and_its_neighbours_are_not(report: Report) -> None:
    results = report["controls"]["results"]
    kinds = {
        kind: {outcome for name, outcome in results.items() if name.startswith(kind)}
        for kind in ("default", "closed", "opened", "beside")
    }
    assert kinds == {
        "default": {"200"},
        "closed": {"egress_refused"},
        "opened": {"200"},
        "beside": {"egress_refused"},
    }
    allowed = {*ADDRESSED, "64:ff9b::5db8:d822"}
    assert set(report["controls"]["opened"]) == allowed


def test_the_name_goes_into_the_handshake_and_into_host(report: Report) -> None:
    served = {(address, name, host) for address, name, host, _ in report["served"]}
    assert ("93.184.216.34", "public.test", "public.test") in served
    assert ("10.77.0.9", "opened.test", "opened.test") in served
    assert ("64:ff9b::5db8:d822", "public-nat64.test", "public-nat64.test") in served
    assert ("2606:2800:220:1::1", None, "[2606:2800:220:1::1]") in served
