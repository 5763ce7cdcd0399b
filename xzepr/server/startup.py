"""What a hub needs before it serves: an address, a database with its schema, and an admin."""

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from xzepr import __version__
from xzepr.core.errors import CannotStart, Problem
from xzepr.features.users.service import Users
from xzepr.infra import revisions
from xzepr.infra.crypto import KeyPair, signing_keys, write_password_file
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.settings import Settings

_OWN_CONNECTIONS = 9
"""What a process holds open besides its pool: the recorder's, the feed's, the relay's, four for subscribers who catch
up, one that requests cannot take, and one that comes and goes."""
_UNSENT_BYTES = 128 * 1024
"""How much of what was written to a connection and not yet sent the kernel keeps; by itself it takes 4 MB for each
client that reads nothing."""
_OTHER_CONNECTIONS = 20
"""For psql, pg_dump and whoever else looks at the embedded database."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that nobody is accepted on yet. Raises CannotStart when the address is taken or not here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"Cannot listen on {host}:{port} ({error.strerror}): stop what listens there, or choose another with "
            "--port or --host."
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """host:port, as it stands in an address."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def database(settings: Settings) -> AsyncGenerator[str]:
    """The URL of a database with a schema that this server works with."""
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
        await asyncio.to_thread(fit, url, embedded=False)
        yield url
        return
    # One process more than are asked for: `xzepr work` may come to the same database.
    processes = settings.server.workers + 1
    connections = processes * (settings.database.max_connections + _OWN_CONNECTIONS) + _OTHER_CONNECTIONS
    options = {"max_connections": str(max(100, connections))}
    postgres = await EmbeddedPostgres.start(settings.data_dir, say=say, settings=options)
    keeper = asyncio.create_task(postgres.keep_running(say))
    try:
        await asyncio.to_thread(fit, postgres.url, embedded=True)
        yield postgres.url
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await postgres.stop()


def fit(url: str, *, embedded: bool) -> None:
    """Brings the embedded database to this server's schema; raises CannotStart unless another's has it."""
    if revisions.are_current(url):
        return
    from xzepr.infra import migrate  # takes most of a second to load, and is seldom needed

    if embedded:
        migrate.migrate(url, say=say)
    else:
        migrate.check(url)


def keys_of(settings: Settings) -> KeyPair:
    """What signs tokens; raises CannotStart when there are none to be had."""
    jwt = settings.jwt
    embedded = settings.database.url is None
    return signing_keys(jwt.private_key_path, jwt.public_key_path, data_dir=settings.data_dir, embedded=embedded)


async def ensure_admin(users: Users, settings: Settings) -> None:
    """Makes the first admin. A password that was made up is shown on a terminal, else kept in a file."""
    auth, path = settings.auth, settings.data_dir / "admin-password"

    def keep(password: str) -> None:
        if sys.stdout.isatty():
            say(f"First start: log in as {auth.admin_username!r} with the password {password} (it is shown only now)")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_password_file(path, password)
            say(f"First start: the password of {auth.admin_username!r} is in {path.resolve()}")

    password = auth.admin_password
    await users.ensure_admin(auth.admin_username, None if password is None else password.get_secret_value(), keep=keep)


@contextmanager
def starting() -> Generator[None]:
    """A Problem in here is why the hub cannot start: CannotStart."""
    try:
        yield
    except Problem as problem:
        raise CannotStart(f"The hub cannot start: {problem.message}.") from problem


def announce(settings: Settings, listener: socket.socket) -> None:
    """Says where the hub answers, and what it works with."""
    shown = address_of(listener)
    say(f"XZepr {__version__} answers at http://{shown}")
    say(f"  playground   http://{shown}/graphql/playground")
    say(f"  data folder  {settings.data_dir.resolve()}")
    if settings.server.workers > 1:
        say(f"  processes    {settings.server.workers}")
    say(f"  Kafka        {kafka_of(settings)}")


def kafka_of(settings: Settings) -> str:
    """Where the stream is relayed to, in words."""
    if not settings.kafka.enabled:
        return "is left to other processes, such as `xzepr work`"
    return ", ".join(settings.kafka.brokers) or "no brokers named: history waits for them"


def say(line: str) -> None:
    """A line for whoever started this."""
    print(line, flush=True)
