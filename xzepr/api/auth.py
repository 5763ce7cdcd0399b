"""Credentials as clients present them, in headers or in `connection_init`, never in an address."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from xzepr.core.actor import ANONYMOUS, Actor
from xzepr.core.errors import InvalidToken

Authenticate = Callable[[str], Awaitable[Actor]]
"""Takes a token or an API key; gives its actor or raises InvalidToken or TokenExpired."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or an API key that was presented and not yet looked at."""

    secret: str = field(repr=False)


def credentials_of(headers: Headers) -> Credential | None:
    """What `Authorization: Bearer …` and `X-API-Key: …` present; None without either.

    Raises InvalidToken for another scheme, and when several are presented that differ.
    """
    bearers = [_bearer(value) for value in headers.getlist("authorization") if value.strip()]
    keys = [value.strip() for value in headers.getlist("x-api-key") if value.strip()]
    return _the_one(bearers + keys)


def credentials_in(payload: Mapping[str, object] | None) -> Credential | None:
    """What a `connection_init` payload presents: `Authorization` (Bearer), `X-API-Key` or `apiKey`, or `token`."""
    found: list[str] = []
    for name, value in (payload or {}).items():
        kind = _PAYLOAD_NAMES.get(name.lower())
        if kind is None or value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            raise InvalidToken(f"{name} must be a text")
        found.append(_bearer(value) if kind == "bearer" else value.strip())
    return _the_one(found)


async def actor_of(credential: Credential | None, authenticate: Authenticate) -> Actor:
    """Who presented it. Nobody presented anything: ANONYMOUS. Raises InvalidToken or TokenExpired."""
    return ANONYMOUS if credential is None else await authenticate(credential.secret)


_PAYLOAD_NAMES = {"authorization": "bearer", "x-api-key": "plain", "apikey": "plain", "token": "plain"}


def _bearer(value: str) -> str:
    scheme, _, secret = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise InvalidToken("Authorization must be 'Bearer' and a token or an API key")
    return secret.strip()


def _the_one(secrets: Iterable[str]) -> Credential | None:
    distinct = set(secrets)
    if len(distinct) > 1:
        raise InvalidToken("several credentials were presented, and they differ: send one")
    return Credential(distinct.pop()) if distinct else None
