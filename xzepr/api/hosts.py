"""Allowed hosts and origins: a defence against DNS rebinding and against pages from other sites."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from xzepr.api.errors import HostNotAllowed
from xzepr.api.request_head import Head

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class AllowedHosts:
    """The host names that this hub accepts. IP addresses are always accepted, because DNS rebinding needs a name."""

    def __init__(self, names: Iterable[str] = (), *, public_url: str | None = None) -> None:
        """`names` have no ports; `*` allows any host. The host of `public_url` is allowed, too."""
        allowed = {_hostname(name) for name in names} | {"localhost"}
        if public_url is not None:
            allowed.add(_hostname(urlsplit(public_url).netloc))
        self._names = frozenset(allowed)
        # Nearly all requests have the same few hosts.
        self._is_allowed = lru_cache(maxsize=256)(self._decide)

    def allow(self, host_header: str) -> bool:
        """Returns whether requests with this `Host` header are accepted."""
        return self._is_allowed(host_header)

    def _decide(self, host_header: str) -> bool:
        name = _hostname(host_header)
        return "*" in self._names or name in self._names or _is_address(name)


class AllowedOrigins:
    """The origins whose pages may open a WebSocket: the hub's own, and the configured ones."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """`origins` are written as browsers send them: `https://console.example.org`; `*` allows any."""
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def allow(self, origin: str | None, host_header: str) -> bool:
        """Returns whether a page from this origin may connect to this host.

        Requests without an Origin header do not come from a browser and are allowed.
        """
        if origin is None or "*" in self._origins:
            return True
        if origin.lower() in self._origins:
            return True
        scheme, _, page_host = origin.lower().partition("://")
        if scheme not in _DEFAULT_PORTS or not page_host:
            return False
        return page_host.removesuffix(_DEFAULT_PORTS[scheme]) == host_header.lower().removesuffix(
            _DEFAULT_PORTS[scheme]
        )


def host_check(hosts: AllowedHosts) -> Callable[[Head], HostNotAllowed | None]:
    """Returns the check that rejects requests and handshakes whose Host is not allowed.

    Requests without a Host header do not come from a browser and are allowed.
    """

    def check(head: Head) -> HostNotAllowed | None:
        host = head.first(b"host")
        if host is None or (hosts.allow(host.decode("latin-1")) and not head.repeats(b"host")):
            return None
        return HostNotAllowed()

    return check


def _hostname(host: str) -> str:
    """Returns the host without its port: `::1` for `[::1]:80`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") > 1:
        return host
    return host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
