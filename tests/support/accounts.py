"""Users, logins and keys for tests, with password hashes of minimal cost."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Literal

from argon2 import PasswordHasher
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from xzepr.core.actor import SYSTEM, Role
from xzepr.features.auth.service import Auth
from xzepr.features.auth.tokens import Tokens
from xzepr.features.users.model import NewUser, User
from xzepr.features.users.service import Users
from xzepr.infra.crypto import KeyPair, Passwords
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

PASSWORD = "correct horse battery"
ISSUER = "xzepr-test"
AUDIENCE = "xzepr-test-clients"


@cache
def key_pair() -> KeyPair:
    """Returns the key pair of this test process."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private.decode(), public.decode(), "test")


def tokens(*, issuer: str = ISSUER, audience: str = AUDIENCE, minutes: float = 15) -> Tokens:
    """Returns tokens signed with the key pair of this test process."""
    return Tokens(key_pair(), issuer=issuer, audience=audience, lifetime=timedelta(minutes=minutes))


def quick_passwords(*, threads: int = 2, waiting: int = 64) -> Passwords:
    """Returns Argon2id passwords of minimal cost. The caller closes them."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return Passwords(hasher, threads=threads, max_waiting=waiting)


class HeldHasher(PasswordHasher):
    """Argon2id of minimal cost that blocks each verification until `released` is set, at most 10 seconds."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.released = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.released.wait(10)
        return super().verify(hash, password)


@dataclass(slots=True)
class Clock:
    """A clock in seconds that only a test advances."""

    time: float = 0.0

    def __call__(self) -> float:
        return self.time


@dataclass(slots=True)
class LoginOutcomes:
    """Collects the outcome of each login."""

    outcomes: list[str] = field(default_factory=list[str])
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self.ended.set()


@dataclass(slots=True)
class Server:
    """The services for accounts of one hub process."""

    db: Database
    passwords: Passwords
    users: Users
    auth: Auth
    clock: Clock
    logins: LoginOutcomes

    async def user(self, name: str, *roles: Role) -> User:
        """Creates a user with the password PASSWORD."""
        return await self.users.create(SYSTEM, NewUser(name, PASSWORD, roles or (Role.EVENT_VIEWER,)))


@asynccontextmanager
async def open_server(
    database_url: str, passwords: Passwords | None = None, *, login_failures_per_minute: int = 10
) -> AsyncGenerator[Server]:
    """Opens the accounts of one process on this database. Closes `passwords` at the end."""
    db = Database(database_url, DatabaseSettings(), name="test")
    await db.open()
    passwords = passwords or quick_passwords()
    clock, logins = Clock(), LoginOutcomes()
    try:
        users = Users(db, passwords, clock=clock)
        auth = Auth(
            db,
            users,
            tokens(),
            login_failures_per_minute=login_failures_per_minute,
            observe_login=logins,
            clock=clock,
        )
        yield Server(db, passwords, users, auth, clock, logins)
    finally:
        passwords.close()
        await db.close()
