"""Access tokens: JWTs signed with RS256. The only module that uses python-jose."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from jose import jwk, jwt
from jose.exceptions import ExpiredSignatureError, JOSEError

from xzepr.core.actor import Role
from xzepr.core.errors import InvalidToken, TokenExpired
from xzepr.core.ids import new_id
from xzepr.core.lru_cache import LRUCache
from xzepr.infra.crypto import KeyPair, digest_of

ALGORITHM = "RS256"
# The hub's tokens have about 900. Longer ones are rejected without parsing, because python-jose parses the header
# before it checks the signature.
MAX_TOKEN_CHARACTERS = 4096

_CACHE_SIZE = 10_000  # verified tokens
# By default python-jose accepts a token without these claims.
_OPTIONS = {f"require_{claim}": True for claim in ("aud", "exp", "iat", "iss", "sub", "jti")}


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, and when it expires."""

    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token, without roles: the hub reads a user's permissions from the database."""

    user_id: str
    username: str
    expires_at: float
    """Seconds since 1970."""


class Tokens:
    """Issues and verifies the tokens of one issuer for one audience with one key pair."""

    def __init__(self, keys: KeyPair, *, issuer: str, audience: str, lifetime: timedelta) -> None:
        self._signing_key = jwk.construct(cast(Any, keys.private_key()), ALGORITHM)
        self._verification_key = jwk.construct(keys.public_pem, ALGORITHM)
        self._headers = {"kid": keys.kid}
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._verified = LRUCache[bytes, Claims](_CACHE_SIZE)

    def issue(self, user_id: str, username: str, roles: Sequence[Role]) -> AccessToken:
        """Returns a new token for the user. Takes about 2 ms of CPU time: call it in a thread."""
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
        """Returns the claims of a token. Raises TokenExpired, or InvalidToken if it is invalid for another reason.

        Caches verified tokens by digest, because verifying one takes 0.1 ms.
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
            claims = jwt.decode(
                text,
                self._verification_key,
                algorithms=[ALGORITHM],
                options=_OPTIONS,
                audience=self._audience,
                issuer=self._issuer,
            )
            return Claims(str(claims["sub"]), str(claims.get("name", "")), float(claims["exp"]))
        except ExpiredSignatureError:
            raise TokenExpired() from None
        # RecursionError for a header of nested brackets, the others for claims of the wrong type.
        except (JOSEError, ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidToken() from None
