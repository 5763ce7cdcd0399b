"""Password hashing is bounded, key files are complete or absent, and secret files are private."""

import asyncio
import os
import stat
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.accounts import HeldHasher, quick_passwords
from xzepr.core.errors import CannotStart, Overloaded
from xzepr.infra import crypto
from xzepr.infra.crypto import (
    Passwords,
    create_key_pair,
    load_keys,
    signing_keys,
    thumbprint,
    write_password_file,
)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Passwords with the cheapest hashes."""
    passwords = quick_passwords()
    yield passwords
    passwords.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Passwords


async def test_hash_matches_only_its_password(passwords: Passwords) -> None:
    first, second = await passwords.hash("secret"), await passwords.hash("secret")
    assert first.startswith("$argon2id$v=19$")
    assert first != second
    assert await passwords.verify(first, "secret")
    assert not await passwords.verify(first, "Secret")
    assert not await passwords.verify(first, "")
    assert not await passwords.verify_dummy("secret")
    assert passwords.verifications == 4


async def test_unicode_forms_of_password_are_equal(passwords: Passwords) -> None:
    assert await passwords.verify(await passwords.hash("caf\u00e9"), "cafe\u0301")


async def test_any_text_can_be_hashed(passwords: Passwords) -> None:
    for text in ("", "\x00", "\x00a", "\ud800", "🔑" * 1000):
        assert await passwords.verify(await passwords.hash(text), text)
        assert not await passwords.verify(await passwords.hash(text), text + "x")


async def test_damaged_hash_raises_error(passwords: Passwords) -> None:
    with pytest.raises(InvalidHashError):
        await passwords.verify("damaged", "secret")
    assert not await passwords.verify_dummy("secret"), "the slot of the failed call is free again"


async def test_dummy_hash_uses_same_parameters() -> None:
    verified: list[str | bytes] = []

    class RecordingHasher(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Any:
            verified.append(hash)
            return super().verify(hash, password)

    passwords = Passwords(RecordingHasher(time_cost=2, memory_cost=16, parallelism=1))
    await passwords.verify(await passwords.hash("secret"), "secret")
    await passwords.verify_dummy("secret")
    passwords.close()
    real, dummy = (str(hash).rsplit("$", 2)[0] for hash in verified)
    assert real == dummy


async def test_full_hash_queue_raises_overloaded() -> None:
    hasher = HeldHasher()
    passwords = Passwords(hasher, threads=1, max_waiting=2)
    hashed = hasher.hash("secret")
    calls = [asyncio.create_task(passwords.verify(hashed, "secret")) for _ in range(3)]
    await asyncio.sleep(0)
    for call in (passwords.verify(hashed, "secret"), passwords.hash("secret"), passwords.verify_dummy("secret")):
        with pytest.raises(Overloaded) as error:
            await call
        assert error.value.retry_after == 1
    assert passwords.verifications == 3
    hasher.released.set()
    assert await asyncio.gather(*calls) == [True, True, True]
    assert await passwords.verify(hashed, "secret")
    passwords.close()


async def test_cancelled_caller_keeps_slot_until_hash_ends() -> None:
    hasher = HeldHasher()
    passwords = Passwords(hasher, threads=1, max_waiting=0)
    hashed = hasher.hash("secret")
    call = asyncio.create_task(passwords.verify(hashed, "secret"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(Overloaded):
        await passwords.verify(hashed, "secret")
    hasher.released.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await passwords.verify(hashed, "secret")
                break
            except Overloaded:
                await asyncio.sleep(0.005)
    passwords.close()


async def test_cancelled_caller_does_not_break_dummy_hash() -> None:
    passwords = quick_passwords(threads=1)
    for _ in range(3):
        call = asyncio.create_task(passwords.verify_dummy("secret"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not await passwords.verify_dummy("secret")
    passwords.close()


# Keys


def test_key_pair_is_created_once(tmp_path: Path) -> None:
    private, public = tmp_path / "keys" / "private.pem", tmp_path / "keys" / "public.pem"
    assert create_key_pair(private, public)
    assert (mode_of(private), mode_of(public), mode_of(tmp_path / "keys")) == (0o600, 0o644, 0o700)
    first = load_keys(private, public)
    assert not create_key_pair(private, public)
    assert load_keys(private) == load_keys(private, public) == first
    assert thumbprint(first.private_key().public_key()) == first.kid
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["private.pem", "public.pem"]
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072
    assert first.private_pem not in repr(first)


def test_missing_or_damaged_public_key_is_restored(tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    create_key_pair(private, public)
    original = public.read_bytes()
    for damaged in (b"", b"something else"):
        public.write_bytes(damaged)
        assert not create_key_pair(private, public)
        assert public.read_bytes() == original
    public.unlink()
    assert not create_key_pair(private, public)
    assert public.read_bytes() == original


def test_crash_while_writing_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"

    def crash(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            create_key_pair(private, public)
    assert not private.exists()
    assert not public.exists()
    assert create_key_pair(private, public)
    assert load_keys(private, public)


_CREATE_KEY_PAIR = """
import pathlib, sys
from xzepr.infra.crypto import create_key_pair, load_keys

private, public = pathlib.Path("private.pem"), pathlib.Path("public.pem")
print("ready", flush=True)
sys.stdin.readline()
print(create_key_pair(private, public), load_keys(private, public).kid)
"""


def test_concurrent_processes_agree_on_key_pair(tmp_path: Path) -> None:
    command, pipe = [sys.executable, "-c", _CREATE_KEY_PAIR], subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(Path(crypto.__file__).parents[2])}
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdin=pipe, stdout=pipe) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(created for created, _ in results) == ["False", "False", "True"]
    assert len({kid for _, kid in results}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private.pem", "public.pem"]


def pem_of(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "xzepr keys init"),
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", "no private key"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "2048 bits"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"x")), "passphrase"),
    ],
)
def test_unusable_key_stops_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "private.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CannotStart, match=message) as error:
        load_keys(path)
    assert str(path) in str(error.value)


def test_mismatched_key_pair_stops_start(tmp_path: Path) -> None:
    create_key_pair(tmp_path / "a", tmp_path / "a.pub")
    create_key_pair(tmp_path / "b", tmp_path / "b.pub")
    with pytest.raises(CannotStart, match="not the public key of"):
        load_keys(tmp_path / "a", tmp_path / "b.pub")
    for public in (tmp_path / "missing", tmp_path, tmp_path / "a"):
        with pytest.raises(CannotStart):
            load_keys(tmp_path / "a", public)


def test_thumbprint_matches_rfc_7638() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    number = int.from_bytes(urlsafe_b64decode(n + "=="), "big")
    key = rsa.RSAPublicNumbers(65537, number).public_key()
    assert crypto.thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_embedded_hub_creates_keys_on_first_start(tmp_path: Path) -> None:
    first = signing_keys(None, None, data_dir=tmp_path / "data", embedded=True)
    assert signing_keys(None, None, data_dir=tmp_path / "data", embedded=True) == first
    assert mode_of(tmp_path / "data" / "keys" / "private.pem") == 0o600
    private = tmp_path / "data" / "keys" / "private.pem"
    assert signing_keys(private, None, data_dir=tmp_path / "other", embedded=False) == first
    assert not (tmp_path / "other").exists()


def test_external_database_requires_named_keys(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="xzepr keys init"):
        signing_keys(None, None, data_dir=tmp_path / "data", embedded=False)
    assert not (tmp_path / "data").exists()


# Secrets and files


def test_api_key_has_256_random_bits() -> None:
    key, other_key = crypto.new_api_key(), crypto.new_api_key()
    assert key != other_key
    assert key.startswith("xzepr_")
    assert bytes.fromhex(key[6:])
    assert len(key) == 70
    assert len(crypto.digest_of(key)) == 32


def test_password_file_is_replaced_as_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "admin-password"
    write_password_file(path, "first")
    path.chmod(0o644)
    write_password_file(path, "second")
    assert path.read_text() == "second\n"
    assert mode_of(path) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["admin-password"]
