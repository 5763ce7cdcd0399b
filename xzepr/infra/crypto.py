"""Secrets: password hashes, the key pair that signs tokens, the secrets of API keys."""

import asyncio
import hashlib
import secrets
import string
import unicodedata
from base64 import urlsafe_b64encode
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from xzepr.core.errors import CannotStart, Overloaded
from xzepr.infra.concurrency import retrieve_exception
from xzepr.infra.files import create_file, replace_file

T = TypeVar("T")

API_KEY_PREFIX = "xzepr_"
TICKET_PREFIX = "xzepr_ticket_"
RSA_BITS = 3072
_LEAST_RSA_BITS = 2048


class Passwords:
    """Argon2id in threads of its own, which the event loop and other threads' work do not wait for.

    A hash costs about 0.1 s of processor and 64 MiB, so both the threads and those who wait for one are bounded.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, threads: int = 2, waiting: int = 64) -> None:
        """`hasher` sets what a hash costs (None: RFC 9106's second option); `waiting` callers may queue for it."""
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="xzepr-passwords")
        self._room = threads + waiting
        self._nobody = self._pool.submit(self._hasher.hash, secrets.token_bytes(32))
        self.verified = 0
        """How many verifications have been begun."""

    def close(self) -> None:
        """Lets go of the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The password's hash with salt and parameters, as PHC string; raises Overloaded when too many wait."""
        self._take_room()
        return await self._wait(self._pool.submit(self._hasher.hash, _bytes(password)))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Whether the password has that hash; raises Overloaded when too many wait."""
        self._take_room()
        self.verified += 1
        return await self._wait(self._pool.submit(self._matches, password_hash, _bytes(password)))

    async def verify_dummy(self, password: str) -> bool:
        """False, after as much work as `verify`: the answer for a user who does not exist."""
        await self.verify(await asyncio.shield(asyncio.wrap_future(self._nobody)), password)
        return False

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than these; then it takes another time to verify, too."""
        return self._hasher.check_needs_rehash(password_hash)

    def _take_room(self) -> None:
        if self._room <= 0:
            raise Overloaded("too many passwords are being checked", retry_after=1)
        self._room -= 1

    async def _wait(self, work: "Future[T]") -> "T":
        # The room is free when the thread is done, not when the caller has stopped waiting for it.
        done = asyncio.wrap_future(work)
        done.add_done_callback(self._free_room)
        done.add_done_callback(retrieve_exception)
        return await asyncio.shield(done)

    def _free_room(self, _: "asyncio.Future[T]") -> None:
        self._room += 1

    def _matches(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False


def _bytes(password: str) -> bytes:
    # RFC 8265 (OpaqueString): the same password typed on two systems may arrive composed in two ways.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def new_password() -> str:
    """A password for somebody to copy: 24 letters and digits, 142 bits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))


def new_api_key() -> str:
    """A new API key: `xzepr_` and 64 hexadecimal digits, 256 bits."""
    return API_KEY_PREFIX + secrets.token_hex(32)


def new_stream_ticket() -> str:
    """A new ticket for one event stream: `xzepr_ticket_` and 64 hexadecimal digits, 256 bits."""
    return TICKET_PREFIX + secrets.token_hex(32)


def digest_of(secret: str) -> bytes:
    """SHA-256 of a secret with too many bits to guess, 32 bytes: what is stored and compared in its place."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What signs tokens and what checks them, as PEM, and the name that tokens give the pair."""

    private_pem: str
    public_pem: str
    kid: str
    """RFC 7638 thumbprint of the public key, so every server names the same key alike."""

    def __repr__(self) -> str:
        return f"KeyPair(kid={self.kid!r})"


def create_key_pair(private_path: Path, public_path: Path) -> bool:
    """Makes an RSA key pair (private 0600, public 0644) and says whether it did: an existing private key stays.

    Either path holds a whole key or nothing, whenever the process dies. Of several processes at once one makes the
    key and all leave with the same pair; a public key that is missing or another's is derived again.
    """
    made = False
    if not private_path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        made = create_file(private_path, _private_pem(key), 0o600)
    public_pem = _public_pem(_read_private(private_path).public_key())
    if not public_path.exists() or public_path.read_bytes() != public_pem:
        replace_file(public_path, public_pem, 0o644)
    return made


def load_keys(private_path: Path, public_path: Path | None = None) -> KeyPair:
    """The pair in these files (no public path: derived); raises CannotStart when they are no RSA pair of 2048 bits."""
    key = _read_private(private_path)
    public_pem = _public_pem(key.public_key())
    if public_path is not None and _read_public(public_path).public_numbers() != key.public_key().public_numbers():
        raise CannotStart(f"{public_path} is not the public half of {private_path}; name a pair, or leave it out.")
    return KeyPair(_private_pem(key).decode(), public_pem.decode(), thumbprint(key.public_key()))


def signing_keys(private_path: Path | None, public_path: Path | None, *, data_dir: Path, embedded: bool) -> KeyPair:
    """The keys that this server signs with: the named ones, else with the embedded database those of the data folder.

    The data folder's are made on the first start. With an external database other servers must accept our tokens, so
    keys that only this one has would be a trap: raises CannotStart.
    """
    if private_path is not None:
        return load_keys(private_path, public_path)
    if not embedded:
        raise CannotStart(
            "With an external database all servers share one key pair: make it with `xzepr keys init`, "
            "and name it in jwt.private_key_path (XZEPR__JWT__PRIVATE_KEY_PATH) of each."
        )
    folder = data_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_key_pair(folder / "private.pem", folder / "public.pem")
    return load_keys(folder / "private.pem", folder / "public.pem")


def write_password_file(path: Path, password: str) -> None:
    """Writes the password and a newline to a private file, and replaces an older one."""
    replace_file(path, f"{password}\n".encode(), 0o600)


def _read_private(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise CannotStart(f"There is no private key at {path}: make one with `xzepr keys init`.") from None
    except OSError as error:
        raise CannotStart(f"The private key {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CannotStart(f"{path} holds no private key in PEM without a passphrase.") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _LEAST_RSA_BITS:
        raise CannotStart(f"{path} is no RSA key of at least {_LEAST_RSA_BITS} bits: make one with `xzepr keys init`.")
    return key


def _read_public(path: Path) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise CannotStart(f"The public key {path} cannot be read: {error.strerror}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CannotStart(f"{path} holds no public key in PEM.") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise CannotStart(f"{path} is no RSA key: make a pair with `xzepr keys init`.")
    return key


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def thumbprint(key: rsa.RSAPublicKey) -> str:
    """The key's name by RFC 7638: the SHA-256 of its public members, in base64url."""
    numbers = key.public_numbers()
    members = f'{{"e":"{_base64url(_number(numbers.e))}","kty":"RSA","n":"{_base64url(_number(numbers.n))}"}}'
    return _base64url(hashlib.sha256(members.encode()).digest())


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
