"""Access tokens: only those that this hub signed, for its audience, and not yet over, are believed."""

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
def checks() -> Tokens:
    return tokens()


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; None leaves one out."""
    now = int(time.time())
    good = {"sub": "u1", "name": "sam", "iat": now, "exp": now + 60, "iss": ISSUER, "aud": AUDIENCE, "jti": "1"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(said: dict[str, Any], key: str | None = None, algorithm: str = "RS256") -> str:
    return jwt.encode(said, key or key_pair().private_pem, algorithm=algorithm)


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def refused(checks: Tokens, token: str) -> bool:
    """Whether the token is refused as invalid, and again when it comes a second time."""
    for _ in range(2):
        with pytest.raises(InvalidToken) as refusal:
            checks.verify(token)
        assert type(refusal.value) is InvalidToken
    return True


def test_issued_token_is_accepted_then_cached(checks: Tokens) -> None:
    token = tokens().issue("u1", "sam", (Role.ADMIN,))
    said = checks.verify(token.text)
    assert (said.user_id, said.username) == ("u1", "sam")
    assert said.expires_at == token.expires_at.timestamp()
    assert checks.verify(token.text) is said
    header = jwt.get_unverified_header(token.text)
    assert header == {"alg": "RS256", "kid": "test", "typ": "JWT"}
    assert {"sub", "name", "roles", "iat", "exp", "iss", "aud", "jti"} == set(jwt.get_unverified_claims(token.text))


def test_issued_tokens_are_unique(checks: Tokens) -> None:
    assert tokens().issue("u1", "sam", ()).text != tokens().issue("u1", "sam", ()).text


def test_unsigned_token_is_rejected(checks: Tokens) -> None:
    for name in ("none", "None", "NONE", "", None, 5, ["RS256"]):
        unsigned = f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}"
        assert refused(checks, unsigned + ".")
        assert refused(checks, unsigned + "." + part(b"x" * 256))
    assert refused(checks, f"{part({'typ': 'JWT'})}.{part(claims())}.")


@pytest.mark.parametrize("secret", ["pem", "stripped", "der", "empty"])
def test_hmac_with_public_key_is_rejected(checks: Tokens, secret: str) -> None:
    pem = key_pair().public_pem.encode()
    public = serialization.load_pem_public_key(pem)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = {"pem": pem, "stripped": pem.strip(), "der": der, "empty": b""}[secret]
    for name, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        content = f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}"
        assert refused(checks, f"{content}.{part(hmac.digest(key, content.encode(), digest))}")


def test_other_rsa_algorithms_are_rejected(checks: Tokens) -> None:
    for name in ("RS384", "RS512"):
        assert refused(checks, signed(claims(), algorithm=name))
    content = f"{part({'alg': 'PS256', 'typ': 'JWT'})}.{part(claims())}"
    key = serialization.load_pem_private_key(key_pair().private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(content.encode(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert refused(checks, f"{content}.{part(signature)}")


def test_key_embedded_in_token_is_ignored(checks: Tokens) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    numbers = mine.public_key().public_numbers()
    pem = mine.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    jwk = {"kty": "RSA", "e": part(b"\x01\x00\x01"), "n": part(numbers.n.to_bytes(256, "big"))}
    headers: dict[str, Any] = {"jwk": jwk, "jku": "https://attacker.example", "kid": "test"}
    assert refused(checks, jwt.encode(claims(), pem, algorithm="RS256", headers=headers))


@pytest.mark.parametrize("missing", ["aud", "exp", "iss", "sub", "iat", "jti"])
def test_missing_claim_is_rejected(checks: Tokens, missing: str) -> None:
    assert refused(checks, signed(claims(**{missing: None})))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody else"},
        {"aud": []},
        {"aud": {AUDIENCE: 1}},
        {"iss": "somebody else"},
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
def test_invalid_claim_is_rejected(checks: Tokens, changes: dict[str, Any]) -> None:
    assert refused(checks, signed(claims(**changes)))


def test_token_of_another_hub_is_rejected(checks: Tokens) -> None:
    assert refused(checks, tokens(audience="other").issue("u1", "sam", ()).text)
    assert refused(checks, tokens(issuer="other").issue("u1", "sam", ()).text)
    mine = rsa.generate_private_key(65537, 2048)
    pem = mine.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert refused(checks, signed(claims(), pem))


def test_altered_token_is_rejected(checks: Tokens) -> None:
    token = tokens().issue("u1", "sam", ()).text
    header, _, signature = token.split(".")
    assert refused(checks, f"{header}.{part(claims(sub='u2'))}.{signature}")
    assert refused(checks, f"{part({'alg': 'RS256'})}.{token.split('.', 1)[1]}")
    for place in range(0, len(signature) - 1, 37):
        other = "A" if signature[place] != "A" else "B"
        assert refused(checks, f"{header}.{token.split('.')[1]}.{signature[:place]}{other}{signature[place + 1 :]}")
    assert checks.verify(token).user_id == "u1"


def test_expired_token_is_reported_cached_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = tokens()
    token = tokens(minutes=1).issue("u1", "sam", ()).text
    old = tokens(minutes=-1).issue("u1", "sam", ()).text
    assert checks.verify(token)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    for expired in (token, token, old, old):
        with pytest.raises(TokenExpired):
            checks.verify(expired)


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
def test_malformed_token_is_rejected(checks: Tokens, text: str) -> None:
    assert refused(checks, text)


def test_signed_non_object_is_rejected(checks: Tokens) -> None:
    key = serialization.load_pem_private_key(key_pair().private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    for body in (b"5", b"null", b"[]", b"{", b"\xff", b"[" * 1500):
        content = f"{part({'alg': 'RS256'})}.{part(body)}"
        signature = key.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())
        assert refused(checks, f"{content}.{part(signature)}")


def test_token_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import xzepr.features.auth.tokens as module

    monkeypatch.setattr(module, "_REMEMBERED", 3)
    checks = tokens()
    issued = [tokens().issue(f"u{n}", "sam", ()).text for n in range(5)]
    first = checks.verify(issued[0])
    for token in issued:
        checks.verify(token)
    assert checks.verify(issued[0]) == first
    assert checks.verify(issued[0]) is not first
