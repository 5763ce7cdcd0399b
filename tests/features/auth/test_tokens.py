"""Access tokens are accepted only if this hub signed them, for its audience, and they have not expired."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jose import jwt

from tests.support.accounts import AUDIENCE, ISSUER, key_pair, tokens
from xzepr.core.actor import Role
from xzepr.core.errors import InvalidToken, TokenExpired
from xzepr.features.auth.tokens import Tokens


@pytest.fixture
def verifier() -> Tokens:
    return tokens()


def claims(**changes: Any) -> dict[str, Any]:
    """Returns valid claims with `changes`; None omits a claim."""
    now = int(time.time())
    valid = {"sub": "u1", "name": "sam", "iat": now, "exp": now + 60, "iss": ISSUER, "aud": AUDIENCE, "jti": "1"}
    return {name: value for name, value in {**valid, **changes}.items() if value is not None}


def signed(claims: dict[str, Any], key: str | None = None, algorithm: str = "RS256") -> str:
    return jwt.encode(claims, key or key_pair().private_pem, algorithm=algorithm)


def part(value: Any) -> str:
    """Returns a token part: base64url of bytes, or of a value as JSON."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def is_rejected(verifier: Tokens, token: str) -> bool:
    """Asserts that the token is invalid, also at a second attempt. Returns True."""
    for _ in range(2):
        with pytest.raises(InvalidToken) as error:
            verifier.verify(token)
        assert type(error.value) is InvalidToken
    return True


def test_issued_token_is_accepted_then_cached(verifier: Tokens) -> None:
    token = tokens().issue("u1", "sam", (Role.ADMIN,))
    verified = verifier.verify(token.text)
    assert (verified.user_id, verified.username) == ("u1", "sam")
    assert verified.expires_at == token.expires_at.timestamp()
    assert verifier.verify(token.text) is verified
    header = jwt.get_unverified_header(token.text)
    assert header == {"alg": "RS256", "kid": "test", "typ": "JWT"}
    assert {"sub", "name", "roles", "iat", "exp", "iss", "aud", "jti"} == set(jwt.get_unverified_claims(token.text))


def test_issued_tokens_are_unique(verifier: Tokens) -> None:
    assert tokens().issue("u1", "sam", ()).text != tokens().issue("u1", "sam", ()).text


def test_unsigned_token_is_rejected(verifier: Tokens) -> None:
    for name in ("none", "None", "NONE", "", None, 5, ["RS256"]):
        unsigned = f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}"
        assert is_rejected(verifier, unsigned + ".")
        assert is_rejected(verifier, unsigned + "." + part(b"x" * 256))
    assert is_rejected(verifier, f"{part({'typ': 'JWT'})}.{part(claims())}.")


@pytest.mark.parametrize("secret", ["pem", "stripped", "der", "empty"])
def test_hmac_with_public_key_is_rejected(verifier: Tokens, secret: str) -> None:
    pem = key_pair().public_pem.encode()
    public = serialization.load_pem_public_key(pem)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = {"pem": pem, "stripped": pem.strip(), "der": der, "empty": b""}[secret]
    for name, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        content = f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}"
        assert is_rejected(verifier, f"{content}.{part(hmac.digest(key, content.encode(), digest))}")


def test_other_rsa_algorithms_are_rejected(verifier: Tokens) -> None:
    for name in ("RS384", "RS512"):
        assert is_rejected(verifier, signed(claims(), algorithm=name))
    content = f"{part({'alg': 'PS256', 'typ': 'JWT'})}.{part(claims())}"
    key = serialization.load_pem_private_key(key_pair().private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(content.encode(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert is_rejected(verifier, f"{content}.{part(signature)}")


def test_key_embedded_in_token_is_ignored(verifier: Tokens) -> None:
    attacker_key = rsa.generate_private_key(65537, 2048)
    numbers = attacker_key.public_key().public_numbers()
    pem = attacker_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    jwk = {"kty": "RSA", "e": part(b"\x01\x00\x01"), "n": part(numbers.n.to_bytes(256, "big"))}
    headers: dict[str, Any] = {"jwk": jwk, "jku": "https://attacker.example", "kid": "test"}
    assert is_rejected(verifier, jwt.encode(claims(), pem, algorithm="RS256", headers=headers))


@pytest.mark.parametrize("missing", ["aud", "exp", "iss", "sub", "iat", "jti"])
def test_missing_claim_is_rejected(verifier: Tokens, missing: str) -> None:
    assert is_rejected(verifier, signed(claims(**{missing: None})))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": []},
        {"aud": {AUDIENCE: 1}},
        {"iss": "other"},
        {"iss": [ISSUER]},
        {"sub": 5},
        {"sub": {"a": 1}},
        {"nbf": int(time.time()) + 86_400},
        {"exp": "soon"},
        {"exp": [9999999999]},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"iat": {}},
    ],
)
def test_invalid_claim_is_rejected(verifier: Tokens, changes: dict[str, Any]) -> None:
    assert is_rejected(verifier, signed(claims(**changes)))


def test_token_of_another_hub_is_rejected(verifier: Tokens) -> None:
    assert is_rejected(verifier, tokens(audience="other").issue("u1", "sam", ()).text)
    assert is_rejected(verifier, tokens(issuer="other").issue("u1", "sam", ()).text)
    attacker_key = rsa.generate_private_key(65537, 2048)
    pem = attacker_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert is_rejected(verifier, signed(claims(), pem))


def test_altered_token_is_rejected(verifier: Tokens) -> None:
    token = tokens().issue("u1", "sam", ()).text
    header, _, signature = token.split(".")
    assert is_rejected(verifier, f"{header}.{part(claims(sub='u2'))}.{signature}")
    assert is_rejected(verifier, f"{part({'alg': 'RS256'})}.{token.split('.', 1)[1]}")
    for index in range(0, len(signature) - 1, 37):
        changed = "A" if signature[index] != "A" else "B"
        assert is_rejected(
            verifier, f"{header}.{token.split('.')[1]}.{signature[:index]}{changed}{signature[index + 1 :]}"
        )
    assert verifier.verify(token).user_id == "u1"


def test_expired_token_is_reported_cached_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = tokens()
    token = tokens(minutes=1).issue("u1", "sam", ()).text
    uncached = tokens(minutes=-1).issue("u1", "sam", ()).text
    assert verifier.verify(token)
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + 61)
    for expired in (token, token, uncached, uncached):
        with pytest.raises(TokenExpired):
            verifier.verify(expired)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        "é.é.é",
        "\ud800",
        "\x00",
        part(b"[" * 2900) + ".e30.e30",
        part(b"{") + ".e30.e30",
        part(b"\xff") + ".e30.e30",
        part([]) + ".e30.e30",
        "a" * 4097,
        "a" * 1_000_000,
    ],
)
def test_malformed_token_is_rejected(verifier: Tokens, text: str) -> None:
    assert is_rejected(verifier, text)


def test_signed_non_object_is_rejected(verifier: Tokens) -> None:
    key = serialization.load_pem_private_key(key_pair().private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    for body in (b"5", b"null", b"[]", b"{", b"\xff", b"[" * 1500):
        content = f"{part({'alg': 'RS256'})}.{part(body)}"
        signature = key.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())
        assert is_rejected(verifier, f"{content}.{part(signature)}")


def test_token_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import xzepr.features.auth.tokens as module

    monkeypatch.setattr(module, "_CACHE_SIZE", 3)
    verifier = tokens()
    issued = [tokens().issue(f"u{n}", "sam", ()).text for n in range(5)]
    first = verifier.verify(issued[0])
    for token in issued:
        verifier.verify(token)
    assert verifier.verify(issued[0]) == first
    assert verifier.verify(issued[0]) is not first
