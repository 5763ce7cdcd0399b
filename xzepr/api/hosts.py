"""Which names this hub answers to and whose pages may connect, against rebound DNS and pages of other sites."""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class AllowedHosts:
    """The host names that are ours. An address in digits always is: DNS rebinding needs a name."""

    def __init__(self, names: Iterable[str] = (), *, public_url: str | None = None) -> None:
        """`names` without ports, or `*` for any; `public_url` adds the host of an address."""
        ours = {_name_of(name) for name in names} | {"localhost"}
        if public_url is not None:
            ours.add(_name_of(urlsplit(public_url).netloc))
        self._names = frozenset(ours)

    def allow(self, host_header: str) -> bool:
        """Whether a request with that `Host` may be answered."""
        name = _name_of(host_header)
        return "*" in self._names or name in self._names or _is_address(name)


class AllowedOrigins:
    """The pages that may open a WebSocket: our own, and those of configured origins."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """`origins` as browsers send them, `https://console.example.org`, or `*` for any."""
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def allow(self, origin: str | None, host_header: str) -> bool:
        """Whether a page of that origin may connect to that host. No origin: not a browser, and welcome."""
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


def _name_of(host: str) -> str:
    """The name without its port: `[::1]:80` is `::1`."""
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
