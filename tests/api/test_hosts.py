"""The Host and Origin headers that the hub accepts."""

import pytest

from xzepr.api.hosts import AllowedHosts, AllowedOrigins


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8042",
        "10.1.2.3:80",
        "[::1]",
        "[::1]:8042",
        "localhost",
        "LOCALHOST:1",
        "hub",
        "Hub.:8042",
        "xzepr.example.org",
        "xzepr.example.org:443",
    ],
)
def test_own_hosts_are_allowed(host: str) -> None:
    assert AllowedHosts(("hub",), public_url="https://xzepr.example.org:8443/x").allow(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.org",
        "localhost.evil.org",
        "127.0.0.1.nip.io",
        "hub.evil.org",
        "xhub",
        "[evil]",
        "1.2.3",
        "0x7f000001",
        "*",
    ],
)
def test_other_hosts_are_not_allowed(host: str) -> None:
    assert not AllowedHosts(("hub",), public_url="https://xzepr.example.org").allow(host)


def test_wildcard_allows_any_host_or_origin() -> None:
    assert AllowedHosts(("*",)).allow("evil.org")
    assert AllowedOrigins(("*",)).allow("https://evil.org", "hub")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "hub", True),
        ("http://hub:8042", "hub:8042", True),
        ("https://HUB", "hub:443", True),
        ("http://hub:80", "hub", True),
        ("https://console.example.org", "hub", True),
        ("http://console.example.org", "hub", False),
        ("http://hub:8042", "hub:8043", False),
        ("http://hub", "hub:8042", False),
        ("null", "hub", False),
        ("", "hub", False),
        ("chrome-extension://hub", "hub", False),
        ("http://", "", False),
        ("http://[", "hub", False),
    ],
)
def test_same_or_configured_origins_are_allowed(origin: str | None, host: str, allowed: bool) -> None:
    assert AllowedOrigins(("https://console.example.org/",)).allow(origin, host) is allowed
