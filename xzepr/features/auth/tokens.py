"""Access tokens: JWTs signed with RS256, the one place where python-jose is used."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jose import jwk, jwt
from jose.exceptions import ExpiredSignatureError, JOSEError

from xzepr.core.actor import Role
from xzepr.core.errors import InvalidToken, TokenExpired
from xzepr.core.ids import new_id
from xzepr.core.lru_cache import LRUCache
from xzepr.infra.crypto import KeyPair, digest_of

ALGORITHM = "RS256"
MAX_TOKEN_CHARACTERS = 4096
"""Longer ones are refused unread: ours have about 900, and python-jose parses a header before it checks a signature."""

_CACHE_SIZE = 10_000
# python-jose takes a token without these claims unless told otherwise.
_OPTIONS = {f"require_{claim}": True for claim in ("aud", "exp", "iat", "iss", "sub", "jti")}


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token and the moment from which it is no longer accepted."""

    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Its roles are left out: what a user may do is asked of the database."""

    user_id: str
    username: str
    expires_at: float
    """Seconds since 1970."""


class Tokens:
    """Makes and checks the tokens of one issuer for one audience with one key pair."""

    def __init__(self, keys: KeyPair, *, issuer: str, audience: str, lifetime: timedelta) -> None:
        self._signing_key = jwk.construct(keys.private_pem, ALGORITHM)
        self._verification_key = jwk.construct(keys.public_pem, ALGORITHM)
        self._headers = {"kid": keys.kid}
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._verified = LRUCache[bytes, Claims](_CACHE_SIZE)

    def issue(self, user_id: str, username: str, roles: Sequence[Role]) -> AccessToken:
        """A token for the user, good from now for the lifetime. Takes about 2 ms of processor: call it in a thread."""
        issued_at = int(time.time())
        expires_at = issued_at + int(self._lifetime.total_seconds())
        claims: dict[str, Any] = {
            "sub": user_id,
            "name": username,
            "roles": [role.value for role in roles],
            "iat": issued_at,
            "exp": expires_at,
            "iss": self._issuer,
            "aud": self._audience,
            "jti": new_id(),
        }
        text = jwt.encode(claims, self._signing_key, algorithm=ALGORITHM, headers=self._headers)
        return AccessToken(text, datetime.fromtimestamp(expires_at, UTC))

    def verify(self, text: str) -> Claims:
        """What the token says; raises TokenExpired, or InvalidToken for everything else that is wrong with it.

        A token that was verified is remembered by its digest until it expires: checking one takes 0.1 ms.
        """
        if len(text) > MAX_TOKEN_CHARACTERS or not text.isascii():
            raise InvalidToken()
        digest = digest_of(text)
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._check(text)
            self._verified.put(digest, claims)
        if time.time() >= claims.expires_at:
            self._verified.pop(digest)
            raise TokenExpired()
        return claims

    def _check(self, text: str) -> Claims:
        try:
            said = jwt.decode(
                text,
                self._verification_key,
                algorithms=[ALGORITHM],
                options=_OPTIONS,
                audience=self._audience,
                issuer=self._issuer,
            )
            return Claims(str(said["sub"]), str(said.get("name", "")), float(said["exp"]))
        except ExpiredSignatureError:
            raise TokenExpired() from None
        # RecursionError: a header of nested brackets; the others: claims of the wrong type.
        except (JOSEError, ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidToken() from None
