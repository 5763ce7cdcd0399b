"""Password hashes, the key pair that signs tokens, and the secrets of API keys and stream tickets."""

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
RSA_BITS = 3072  # of a new key
_MIN_RSA_BITS = 2048  # of an existing key


class Passwords:
    """Argon2id hashes of passwords, computed in separate threads.

    A hash takes about 0.1 s of a processor and 64 MiB, so the numbers of threads and of waiting callers are limited.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, threads: int = 2, max_waiting: int = 64) -> None:
        """`hasher` sets the cost of a hash (by default RFC 9106's second option); `max_waiting` callers may wait."""
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="xzepr-passwords")
        self._free_slots = threads + max_waiting
        self._dummy_hash = self._pool.submit(self._hasher.hash, secrets.token_bytes(32))
        self.verifications = 0
        """Number of verifications that were started."""

    def close(self) -> None:
        """Stops the threads and cancels the work that has not started."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Returns a hash with salt and parameters, as a PHC string. Raises Overloaded if too many callers wait."""
        self._take_slot()
        return await self._wait(self._pool.submit(self._hasher.hash, _bytes(password)))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Returns whether the password has this hash. Raises Overloaded if too many callers wait."""
        self._take_slot()
        self.verifications += 1
        return await self._wait(self._pool.submit(self._matches, password_hash, _bytes(password)))

    async def verify_dummy(self, password: str) -> bool:
        """Returns False after as much work as `verify`: an unknown user must take as long as a wrong password."""
        await self.verify(await asyncio.shield(asyncio.wrap_future(self._dummy_hash)), password)
        return False

    def is_outdated(self, password_hash: str) -> bool:
        """Returns whether a hash has other parameters than new hashes, and so takes another time to verify."""
        return self._hasher.check_needs_rehash(password_hash)

    def _take_slot(self) -> None:
        if self._free_slots <= 0:
            raise Overloaded("too many passwords are being checked", retry_after=1)
        self._free_slots -= 1

    async def _wait(self, work: "Future[T]") -> "T":
        # The slot stays taken until the thread is done, even if the caller is cancelled.
        done = asyncio.wrap_future(work)
        done.add_done_callback(self._free_slot)
        done.add_done_callback(retrieve_exception)
        return await asyncio.shield(done)

    def _free_slot(self, _: "asyncio.Future[T]") -> None:
        self._free_slots += 1

    def _matches(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False


def _bytes(password: str) -> bytes:
    # RFC 8265 (OpaqueString): two systems may encode the same typed password in different Unicode forms.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def new_password() -> str:
    """Returns a new password that is easy to copy: 24 letters and digits, 142 bits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))


def new_api_key() -> str:
    """Returns a new API key: `xzepr_` and 64 hexadecimal digits, 256 bits."""
    return API_KEY_PREFIX + secrets.token_hex(32)


def new_stream_ticket() -> str:
    """Returns a new ticket for one event stream: `xzepr_ticket_` and 64 hexadecimal digits, 256 bits."""
    return TICKET_PREFIX + secrets.token_hex(32)


def digest_of(secret: str) -> bytes:
    """Returns the SHA-256 of a secret, 32 bytes, to store and compare instead. The secret must be too long to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The keys that sign and verify tokens, as PEM, and their id in tokens."""

    private_pem: str
    public_pem: str
    kid: str
    """RFC 7638 thumbprint of the public key, so that all servers have the same id for a key."""

    def __repr__(self) -> str:
        return f"KeyPair(kid={self.kid!r})"

    def private_key(self) -> rsa.RSAPrivateKey:
        """Returns the private key. It was validated when the files were read, which takes 0.1 s of a processor."""
        pem = self.private_pem.encode()
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, rsa.RSAPrivateKey), "load_keys returns RSA keys only"
        return key


def create_key_pair(private_path: Path, public_path: Path) -> bool:
    """Creates an RSA key pair (private 0600, public 0644) unless the private key exists. Returns whether it did.

    A crash leaves no incomplete file. If several processes call this at the same time, one creates the key and all
    use it. A public key that is missing or does not match is written again.
    """
    return _create_key_pair(private_path, public_path)[0]


def _create_key_pair(private_path: Path, public_path: Path) -> tuple[bool, rsa.RSAPrivateKey]:
    created = False
    if not private_path.exists():
        new_key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        created = create_file(private_path, _private_pem(new_key), 0o600)
    key = _read_private(private_path)
    public_pem = _public_pem(key.public_key())
    if not public_path.exists() or public_path.read_bytes() != public_pem:
        replace_file(public_path, public_pem, 0o644)
    return created, key


def load_keys(private_path: Path, public_path: Path | None = None) -> KeyPair:
    """Reads a key pair; derives the public key if there is no public path.

    Raises CannotStart if the files are not an RSA key pair of at least 2048 bits.
    """
    key = _read_private(private_path)
    if public_path is not None and _read_public(public_path).public_numbers() != key.public_key().public_numbers():
        raise CannotStart(f"{public_path} is not the public key of {private_path}: use the two files of one pair.")
    return _key_pair(key)


def _key_pair(key: rsa.RSAPrivateKey) -> KeyPair:
    public = key.public_key()
    return KeyPair(_private_pem(key).decode(), _public_pem(public).decode(), thumbprint(public))


def signing_keys(private_path: Path | None, public_path: Path | None, *, data_dir: Path, embedded: bool) -> KeyPair:
    """Returns the keys with which this server signs: the given ones, or those in the data folder.

    The first start of an embedded database creates the keys in the data folder. With an external database, all servers
    must accept each other's tokens, so it raises CannotStart if no keys are given.
    """
    if private_path is not None:
        return load_keys(private_path, public_path)
    if not embedded:
        raise CannotStart(
            "With an external database, all servers share one key pair: create it with `xzepr keys init`, "
            "and set jwt.private_key_path (XZEPR__JWT__PRIVATE_KEY_PATH) of each server to it."
        )
    folder = data_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _key_pair(_create_key_pair(folder / "private.pem", folder / "public.pem")[1])


def write_password_file(path: Path, password: str) -> None:
    """Writes the password and a newline to a private file, and replaces an older one."""
    replace_file(path, f"{password}\n".encode(), 0o600)


def _read_private(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise CannotStart(f"There is no private key at {path}: create one with `xzepr keys init`.") from None
    except OSError as error:
        raise CannotStart(f"The private key {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CannotStart(f"{path} contains no private key in PEM without a passphrase.") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _MIN_RSA_BITS:
        raise CannotStart(
            f"{path} is not an RSA key of at least {_MIN_RSA_BITS} bits: create one with `xzepr keys init`."
        )
    return key


def _read_public(path: Path) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise CannotStart(f"The public key {path} cannot be read: {error.strerror}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CannotStart(f"{path} contains no public key in PEM.") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise CannotStart(f"{path} is not an RSA key: create a pair with `xzepr keys init`.")
    return key


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def thumbprint(key: rsa.RSAPublicKey) -> str:
    """Returns the key's thumbprint (RFC 7638): the SHA-256 of its public members, in base64url."""
    numbers = key.public_numbers()
    members = f'{{"e":"{_base64url(_number(numbers.e))}","kty":"RSA","n":"{_base64url(_number(numbers.n))}"}}'
    return _base64url(hashlib.sha256(members.encode()).digest())


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
