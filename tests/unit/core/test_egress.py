"""Which URLs are read and how, and which addresses may be sent to."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from forebay.core.egress import EgressPolicy, Target
from forebay.core.errors import InvalidRequest

TABLE = Path(__file__).parents[2] / "fuzz" / "hostile_urls.jsonl"
HOSTILE = [url for kind, url in map(json.loads, TABLE.read_text().splitlines()) if kind == "url"]
DEFAULT = EgressPolicy()
ANYWHERE = EgressPolicy(allow_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")), loopback=True)
ADDRESSES = st.ip_addresses().map(str)


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(InvalidRequest, match="URL"):
        DEFAULT.check_url(url)


@given(st.text() | st.text("https:/@\\[]#?.%0x7f12:é \t"))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://public.test{text}"):
        try:
            target = EgressPolicy(ports=frozenset(range(65536)), http_hosts=frozenset({"a"})).check_url(url)
        except InvalidRequest:  # refused is one of the two good outcomes
            continue
        assert_read_alike(url, target)


def assert_read_alike(url: str, target: Target) -> None:
    """What we take, aiohttp's own reader takes for the same: there are no two opinions on it."""
    other = URL(url, encoded=True)
    assert (other.scheme, other.port) == (target.scheme, target.port)
    assert (other.raw_host or "").lower() == target.host or ip_address(str(other.raw_host)) == ip_address(target.host)
    assert (other.raw_path or "/", other.raw_query_string) == (target.path, target.query)
    assert (other.user, other.raw_fragment) == (None, "")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target(scheme="https", host="example.com", port=443, path="/", query="")),
        ("HTTPS://Example.COM:443/Hook", Target(scheme="https", host="example.com", port=443, path="/Hook", query="")),
        ("https://a.test?x=/y", Target(scheme="https", host="a.test", port=443, path="/", query="x=/y")),
        (
            "https://a_b-c.test/%2F/../@:",
            Target(scheme="https", host="a_b-c.test", port=443, path="/%2F/../@:", query=""),
        ),
        (
            "https://xn--bcher-kva.test/",
            Target(scheme="https", host="xn--bcher-kva.test", port=443, path="/", query=""),
        ),
        ("https://8.8.8.8/", Target(scheme="https", host="8.8.8.8", port=443, path="/", query="")),
        (
            "https://[2606:2800:0220:0001::1]/",
            Target(scheme="https", host="2606:2800:220:1::1", port=443, path="/", query=""),
        ),
        ("https://0x7f.example/", Target(scheme="https", host="0x7f.example", port=443, path="/", query="")),
    ],
)
def test_a_good_url_is_read(url: str, target: Target) -> None:
    assert DEFAULT.check_url(url) == target
    assert_read_alike(url, target)


@given(ADDRESSES)
@example("::ffff:8.8.8.8")
@example("64:ff9b::808:808")
def test_what_is_open_by_default_is_global_by_the_standard_library_too(address: str) -> None:
    if DEFAULT.judge(address) is not None:
        return
    parsed = ip_address(address)
    held = getattr(parsed, "ipv4_mapped", None) or parsed
    if parsed in ip_network("64:ff9b::/96"):
        held = IPv4Address(int(parsed) & 0xFFFF_FFFF)
    assert held.is_global
    assert not held.is_multicast
    assert not held.is_reserved


@given(ADDRESSES)
def test_most_of_the_global_unicast_addresses_are_open(address: str) -> None:
    parsed = ip_address(address)
    special = isinstance(parsed, IPv6Address) and (
        parsed not in ip_network("2000::/3") or parsed in ip_network("2001::/23")
    )
    embedding = isinstance(parsed, IPv6Address) and (parsed.sixtofour or parsed in ip_network("2620:4f:8000::/48"))
    old = isinstance(parsed, IPv4Address) and any(
        parsed in ip_network(one)
        for one in ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24")
    )
    cloud = address == "168.63.129.16"
    if parsed.is_global and not (parsed.is_multicast or special or embedding or old or cloud):
        assert DEFAULT.judge(address) is None


@pytest.mark.parametrize(
    "embedding",
    ["::ffff:{}", "::{}", "64:ff9b::{}", "64:ff9b:1::{}"],
)
@pytest.mark.parametrize("held", ["169.254.169.254", "100.100.100.200", "168.63.129.16", "0.0.0.0", "224.0.0.1"])
def test_metadata_is_never_reached_whatever_is_allowed_and_however_it_is_written(embedding: str, held: str) -> None:
    for address in (held, embedding.format(held)):
        assert ANYWHERE.judge(address) is not None, address


@pytest.mark.parametrize(
    "address",
    [
        "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fe80::1", "fe80::1%eth0", "::1%lo", "ff02::1",
        "169.254.170.2", "192.0.0.192", "255.255.255.255", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1",
        "2001:0:808:808::5601:5601", "::",
    ],
)  # fmt: skip
def test_what_no_setting_opens_stays_closed(address: str) -> None:
    assert ANYWHERE.judge(address) is not None


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "127.0.0.1 ", "１２７.0.0.1", "127.0.0.1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert ANYWHERE.judge(text) == "no IP address"


def test_a_network_that_is_allowed_is_open_and_its_neighbours_are_not() -> None:
    policy = EgressPolicy(allow_networks=(ip_network("10.1.0.0/16"), ip_network("fd12::/32")))
    assert [policy.judge(one) for one in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1")] == [None, None, None]
    assert policy.judge("10.2.0.1") == "private"
    assert policy.judge("::ffff:10.2.0.1") == "one that holds another which is private"
    assert policy.judge("fd13::1") == "private"
    assert policy.judge("127.0.0.1") == "loopback"
    assert policy.check_url("https://10.1.2.3/").host == "10.1.2.3"


def test_http_is_for_the_hosts_that_are_named() -> None:
    policy = EgressPolicy(http_hosts=frozenset({"plain.test"}), ports=frozenset({443, 8080}))
    for url in ("http://plain.test/", "http://PLAIN.test:80/", "http://plain.test:8080/", "https://plain.test/"):
        assert policy.check_url(url).host == "plain.test"
    for url in ("http://other.test/", "http://plain.test:81/", "https://plain.test:80/", "http://a.plain.test/"):
        with pytest.raises(InvalidRequest):
            policy.check_url(url)


def test_a_service_of_this_machine_alone_may_send_to_it() -> None:
    policy = EgressPolicy(loopback=True)
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "[::1]"):
        for url in (f"http://{host}:9000/", f"https://{host}/", f"http://{host}/"):
            policy.check_url(url)
            with pytest.raises(InvalidRequest):
                EgressPolicy().check_url(url.replace("localhost", "127.0.0.1"))
    assert policy.judge("127.0.0.1", host="localhost") is None
    assert policy.judge("::1", host="localhost") is None
    assert policy.judge("10.0.0.1", host="localhost") == "private"
    with pytest.raises(InvalidRequest):
        policy.check_url("http://10.0.0.1:9000/")


def test_a_name_from_elsewhere_does_not_lead_to_this_machine() -> None:
    assert EgressPolicy(loopback=True).judge("127.0.0.1", host="rebind.test") == "loopback"


def test_a_name_is_not_looked_up() -> None:
    assert DEFAULT.check_url("https://localhost/").host == "localhost"
