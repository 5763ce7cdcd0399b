"""Reads credentials from headers or from a `connection_init` payload, never from a URL."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field

from xzepr.api.request_head import Head
from xzepr.core.actor import Actor
from xzepr.core.errors import InvalidToken
from xzepr.core.frozen import frozen

# Takes a token or an API key and returns its actor. Raises InvalidToken or TokenExpired.
Authenticate = Callable[[str], Awaitable[Actor]]

# Where a `connection_init` payload may carry a credential: key in lower case, and the form of its value.
_PAYLOAD_KEYS = {"authorization": "bearer", "x-api-key": "plain", "apikey": "plain", "token": "plain"}


@frozen
class Credential:
    """A token or an API key that a client sent and that is not verified yet."""

    secret: str = field(repr=False)


def credential_from_head(head: Head) -> Credential | None:
    """Returns the credential in `Authorization: Bearer …` or `X-API-Key: …`; None if there is neither.

    With an `X-API-Key`, `Authorization` is ignored. Raises InvalidToken if the scheme is not Bearer, or if several
    credentials in headers of the same name differ.
    """
    bearer, key = head.first(b"authorization"), head.first(b"x-api-key")
    if bearer is None and key is None:
        return None
    if (  # nearly all requests
        key is None
        and bearer is not None
        and bearer.startswith(b"Bearer ")
        and not head.repeats(b"authorization")
        and (secret := bearer[7:].decode("latin-1").strip())
    ):
        return Credential(secret)
    # A proxy may add its own `Authorization`, which is none of ours, to a client's key.
    if keys := _values(head, b"x-api-key"):
        return _single_credential(keys)
    secrets = [_bearer(value) for value in _values(head, b"authorization")]
    return _single_credential(secrets) if secrets else None


def credential_from_payload(payload: Mapping[str, object] | None) -> Credential | None:
    """Returns the credential in a `connection_init` payload, or None.

    Its keys are `Authorization` (with Bearer), `X-API-Key`, `apiKey` and `token`, in any case. Raises InvalidToken if a
    value is not a string, or if several credentials differ.
    """
    secrets: list[str] = []
    for name, value in (payload or {}).items():
        kind = _PAYLOAD_KEYS.get(name.lower())
        if kind is None or value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            raise InvalidToken(f"{name} must be a non-empty string")
        secrets.append(_bearer(value) if kind == "bearer" else value.strip())
    return _single_credential(secrets)


def _values(head: Head, name: bytes) -> list[str]:
    return [text for value in head.every(name) if (text := value.decode("latin-1").strip())]


def _bearer(value: str) -> str:
    scheme, _, secret = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise InvalidToken("Authorization must be 'Bearer', followed by a token or an API key")
    return secret.strip()


def _single_credential(secrets: Iterable[str]) -> Credential | None:
    distinct = set(secrets)
    if len(distinct) > 1:
        raise InvalidToken("the request has several different credentials: send only one")
    return Credential(distinct.pop()) if distinct else None
